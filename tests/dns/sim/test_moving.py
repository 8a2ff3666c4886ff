"""Servers that move: DNS names other machines under load, and no request fails.

Loads are GETs at even distances for some seconds; DNS is asked each second.
"""

from __future__ import annotations

import pytest
import trio

from support.naming import HOST, SERVICE, NamedNet, named_world, service, shown, told_of_dns
from support.outages import at, open_load, outcomes_at, run_apps, slowest, statuses
from support.pools import ask, serve, told
from support.scenario import get, now_ms, only, until_ms
from support.world import upstream_settings
from trio_proxy.settings import Balance, Dns, Limits, Retry

BLUE = ("10.1.0.1", "10.1.0.2", "10.1.0.3")
GREEN = ("10.2.0.1", "10.2.0.2", "10.2.0.3")
SERVERS = [f"{host}:9000" for host in (*BLUE, *GREEN)]
#: What every test here has in common.
COMMON = {"servers": SERVERS, "dns": Dns(refresh_ms=1000), "timeouts": only(drain_ms=2000)}


@pytest.mark.parametrize("policy", ["round_robin", "least_conn", "random_two", "ip_hash", "hash"])
async def test_from_blue_to_green(policy: str) -> None:
    """The old ones get what came before the refresh, the new ones the rest; without any retry."""
    net = NamedNet(*BLUE)
    balance = Balance(policy=policy)  # type: ignore[arg-type]
    async with named_world(net, balance=balance, **COMMON) as w:
        apps = run_apps(w, delay=0.15)
        at(w, 2500, lambda: net.name(HOST, *GREEN))
        answers = await open_load(w, per_second=50, seconds=6)
        assert statuses(answers) == {200: 300}
        assert slowest(answers) == 150
        blue, green = apps[:3], apps[3:]
        assert sum(app.arrived(0, 3000) for app in blue) == 150
        assert sum(app.arrived(3000.001, 6000) for app in green) == 149
        assert sum(len(app.arrivals) for app in apps) == 300
        assert shown(w) == sorted(SERVERS[3:])
        assert len([line for line in told(w) if "removed" in line]) == 3
    assert {len(exchange.tries) for exchange in w.exchanges} == {1}


async def test_blue_is_switched_off_when_it_is_drained() -> None:
    """SIGTERM half a second after the refresh, SIGKILL later: nobody is there to notice."""
    net = NamedNet(*BLUE)
    async with named_world(net, **COMMON) as w:
        apps = run_apps(w, delay=0.1)
        at(w, 2500, lambda: net.name(HOST, *GREEN))
        for app in apps[:3]:
            at(w, 3500, app.stop)
            at(w, 4000, app.kill)
        answers = await open_load(w, per_second=50, seconds=6)
    assert statuses(answers) == {200: 300}
    assert {len(exchange.tries) for exchange in w.exchanges} == {1}


async def test_one_after_the_other_is_killed_before_dns_is_asked() -> None:
    """A rolling replacement, each old server dead as soon as DNS says so: retries hide it."""
    net = NamedNet(*BLUE)
    hosts = list(BLUE)
    async with named_world(net, retry=Retry(), **COMMON) as w:
        apps = run_apps(w)

        def replace(number: int) -> None:
            hosts[number] = GREEN[number]
            net.name(HOST, *hosts)
            apps[number].kill()

        for number in range(3):
            at(w, 1100 + 2000 * number, lambda number=number: replace(number))
        answers = await open_load(w, per_second=100, seconds=8)
        assert shown(w) == sorted(SERVERS[3:])
    assert statuses(answers) == {200: 800}
    # One request finds out, and one per server may have been under way when it was killed.
    failed = [
        sum(count for name, count in outcomes_at(w, n).items() if name != "200") for n in range(6)
    ]
    assert all(1 <= count <= 3 for count in failed[:3])
    assert failed[3:] == [0, 0, 0]


async def test_to_another_address_of_the_same_machine() -> None:
    """A sole server that gets another address: the old one serves until it is not named."""
    net = NamedNet(BLUE[0])
    async with named_world(net, retry=Retry(), **COMMON) as w:
        apps = run_apps(w)
        at(w, 2500, lambda: net.name(HOST, GREEN[0]))
        at(w, 3500, apps[0].kill)
        answers = await open_load(w, per_second=100, seconds=5)
        assert (apps[0].arrived(0, 3000), apps[3].arrived(3000.001, 5000)) == (300, 199)
    assert statuses(answers) == {200: 500}


async def test_green_starts_slowly_where_blue_stays() -> None:
    """A canary: the newcomer gets a tenth at first, and its whole share in the end."""
    net = NamedNet(BLUE[0])
    upstreams = [upstream_settings("app.test:9000", slow_start_ms=4000)]
    async with named_world(net, upstreams, **COMMON) as w:
        apps = run_apps(w)
        net.name(HOST, BLUE[0], GREEN[0])
        answers = await open_load(w, per_second=100, seconds=8)
        shares = [apps[3].arrived(from_ms, from_ms + 500) for from_ms in range(1000, 8000, 500)]
    assert statuses(answers) == {200: 800}
    assert shares[0] == pytest.approx(5, abs=1)
    assert shares[:9] == sorted(shares[:9])
    assert shares[8:] == pytest.approx([25] * 6, abs=1)


async def test_green_is_used_at_once_where_nobody_stays() -> None:
    """A slow start of all of them slows down nothing."""
    net = NamedNet(*BLUE)
    upstreams = [upstream_settings("app.test:9000", slow_start_ms=60_000)]
    async with named_world(net, upstreams, **COMMON) as w:
        apps = run_apps(w)
        net.name(HOST, *GREEN)
        answers = await open_load(w, per_second=90, seconds=4)
        assert [app.arrived(1000, 4000) for app in apps[3:]] == pytest.approx([90] * 3, abs=1)
    assert statuses(answers) == {200: 360}
    assert slowest(answers) == 10


async def test_what_takes_longer_than_the_drain_is_cut() -> None:
    """And nothing else: a request of four seconds on blue ends with 503 at drain_ms."""
    net = NamedNet(*BLUE)
    async with named_world(net, **COMMON) as w:
        apps = run_apps(w)
        apps[0].delay = 4
        at(w, 1, lambda: net.name(HOST, *GREEN))
        answers = await open_load(w, per_second=3, seconds=3)
        assert now_ms() == 3000
    assert statuses(answers) == {200: 8, 503: 1}
    (cut,) = [answer for answer in answers if answer.status == 503]
    assert cut.at_ms + cut.took_ms == 3000


async def test_a_full_pool_moves_with_its_queue() -> None:
    """All connections of blue are taken and many wait: those go to green at the refresh."""
    net = NamedNet(*BLUE)
    limits = Limits(max_conns_per_upstream=2)
    async with named_world(net, limits=limits, **COMMON) as w:
        apps = run_apps(w, delay=0.1)
        for app in apps[:3]:
            app.delay = 1.5
        at(w, 1, lambda: net.name(HOST, *GREEN))
        answers = await open_load(w, per_second=40, seconds=2)
        assert [len(app.arrivals) for app in apps[:3]] == [2, 2, 2]
        assert max(app.most for app in apps) == 2
    assert statuses(answers) == {200: 80}


async def test_dns_goes_down_in_the_middle_of_the_move() -> None:
    """Half of the new servers are known when it fails: those and the old ones go on."""
    net = NamedNet(*BLUE)
    async with named_world(net, retry=Retry(), **COMMON) as w:
        apps = run_apps(w)
        at(w, 500, lambda: net.name(HOST, *BLUE[:2], GREEN[0]))
        at(w, 1500, lambda: (net.name(HOST, *GREEN), net.fail_names()))
        at(w, 4500, net.heal_names)
        answers = await open_load(w, per_second=100, seconds=6)
        assert sum(app.arrived(2000, 5000) for app in (apps[0], apps[1], apps[3])) == 300
        assert sum(app.arrived(5000.001, 6000) for app in apps[3:]) == 99
        assert len(told_of_dns(w)) == 2
    assert statuses(answers) == {200: 600}


async def test_a_service_moves_by_its_priorities() -> None:
    """Green is first the backup, then the primary, then alone."""
    net = NamedNet()
    blue, green = f"{BLUE[0]}", f"{GREEN[0]}"
    net.service(SERVICE, (blue, 9000, 1, 1), (green, 9000, 2, 1))
    async with named_world(net, [service()], **COMMON) as w:
        apps = run_apps(w)
        at(w, 1500, lambda: net.service(SERVICE, (blue, 9000, 2, 1), (green, 9000, 1, 1)))
        at(w, 3500, lambda: net.service(SERVICE, (green, 9000, 1, 1)))
        answers = await open_load(w, per_second=100, seconds=5)
        assert shown(w) == [f"{green}:9000"]
        assert (apps[0].arrived(0, 2000), apps[3].arrived(2000.001, 5000)) == (200, 299)
    assert statuses(answers) == {200: 500}


async def test_connections_are_kept_open_across_a_hundred_refreshes() -> None:
    """An address that stays is not dialled anew, whatever comes and goes around it."""
    net = NamedNet(*BLUE)
    async with named_world(net, **COMMON) as w:
        apps = run_apps(w)
        for second in range(100):
            at(w, second * 1000 + 500, lambda n=second: net.name(HOST, BLUE[0], GREEN[n % 3]))
        answers = await open_load(w, per_second=4, seconds=100)
        assert len(w.upstreams[0].peers) == 1
        assert len(apps[0].arrivals) == pytest.approx(200, abs=5)
    assert statuses(answers) == {200: 400}
    await until_ms(100_001)


async def test_hashing_moves_only_the_keys_of_the_one_that_goes() -> None:
    """They return with it; all others stay where they are through it all."""
    net = NamedNet(*BLUE)
    balance = Balance(policy="hash", key="uri")
    async with named_world(net, balance=balance, **COMMON) as w:
        serve(w)
        places = []
        for hosts in (BLUE, BLUE[1:], (*BLUE, GREEN[0]), BLUE):
            net.name(HOST, *hosts)
            await trio.sleep(1.001)
            places.append([await ask(w, 1, get(number)) for number in range(60)])
        before, without, more, after = places
        assert set(before) == {b"a", b"b", b"c"}
        moved = [one for one, other in zip(before, without, strict=True) if one != other]
        assert moved == [b"a"] * before.count(b"a")
        assert {other for one, other in zip(before, more, strict=True) if one != other} == {b"d"}
        assert after == before
