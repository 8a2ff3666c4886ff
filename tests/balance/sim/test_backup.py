"""Backups: used when no primary is available, and only then."""

from __future__ import annotations

from support.pools import A, B, C, ask, is_up, serve, servers, statuses, told, tries
from support.scenario import now_ms, only, until_ms
from support.world import GET, settings_for, world
from trio_proxy.settings import Balance, Limits, Retry

TWO_AND_A_BACKUP = servers({}, {}, {"backup": True}, fail_timeout_ms=2000)


async def test_a_backup_has_nothing_to_do() -> None:
    """While a primary is available; the last one that is left has it all."""
    async with world(upstreams=TWO_AND_A_BACKUP, timeouts=only()) as w:
        every = serve(w)
        assert await ask(w, 4) == b"abab"
        every[0].fault = "reset"
        assert await statuses(w, 1) == [502]
        assert await ask(w, 4) == b"bbbb"
        assert len(every[2].requests) == 0


async def test_the_backup_when_no_primary_is_left_and_back() -> None:
    """From the request after the last failure on, and until a trial of a primary succeeds."""
    async with world(upstreams=TWO_AND_A_BACKUP, timeouts=only()) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        assert await ask(w, 4) == b"cccc"
        every[0].fault = every[1].fault = ""
        await until_ms(1999)
        assert await ask(w, 2) == b"cc"
        await until_ms(2000)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        assert [len(each.requests) for each in every] == [3, 3, 6]
        assert tries(w)[:3] == ["a", "b", "c"]
        assert sorted(told(w)[-2:]) == [
            f"upstream {A} up: a request succeeded",
            f"upstream {B} up: a request succeeded",
        ]


async def test_a_retry_goes_to_the_backup() -> None:
    """The client that finds the last primary dead is served by the backup."""
    tables = servers({}, {"backup": True})
    async with world(upstreams=tables, timeouts=only(), retry=Retry()) as w:
        serve(w)
        w.net.refuse(A)
        assert await ask(w, 3) == b"bbb"
        assert tries(w) == ["ab", "b", "b"]


async def test_a_sole_primary_with_a_backup_can_be_taken_out() -> None:
    """It is not the only member of its pool."""
    tables = servers({}, {"backup": True})
    async with world(upstreams=tables, timeouts=only()) as w:
        serve(w)[0].fault = "close"
        assert await statuses(w, 2) == [502, 200]
        assert not is_up(w, A)
        assert tries(w) == ["a", "b"]


async def test_a_full_primary_is_available() -> None:
    """Its requests wait for it; the backup is not for overload (as in nginx)."""
    tables = servers({"max_conns": 1}, {"backup": True})
    async with world(upstreams=tables, timeouts=only(), limits=Limits(queue_ms=0)) as w:
        every = serve(w)
        every[0].delay = 1.0
        one, other = await w.client(), await w.client()
        await one.send(GET)
        await other.send(GET)
        assert (await one.read_response()).body == b"a"
        assert (await other.read_response()).body == b"a"
        assert now_ms() == 2000
        assert [len(each.requests) for each in every] == [2, 0]


async def test_draining_primaries_leave_their_work_to_the_backup() -> None:
    """A drain of all of them is no outage."""
    async with world(upstreams=TWO_AND_A_BACKUP, timeouts=only()) as w:
        serve(w)
        w.proxy.pools["default"].drain(A)
        w.proxy.pools["default"].drain(B)
        assert await ask(w, 3) == b"ccc"
        w.proxy.pools["default"].undrain(B)
        assert await ask(w, 3) == b"bbb"


async def test_several_backups_share_by_weight() -> None:
    """They are balanced by the same policy as primaries are."""
    tables = servers({}, {"backup": True, "weight": 2}, {"backup": True})
    async with world(upstreams=tables, timeouts=only()) as w:
        serve(w)
        w.proxy.pools["default"].drain(A)
        assert sorted(await ask(w, 6)) == sorted(b"bbbbcc")


async def test_a_backup_that_is_out_too() -> None:
    """The primaries are tried again before it: least bad comes first."""
    tables = servers({}, {"backup": True}, fail_timeout_ms=60_000)
    async with world(upstreams=tables, timeouts=only()) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        every[0].fault = ""
        assert await ask(w, 2) == b"aa"
        assert is_up(w, A)
        assert tries(w) == ["a", "b", "a", "a"]


async def test_a_backup_becomes_a_primary_by_reload() -> None:
    """And a primary a backup."""
    async with world(upstreams=servers({}, {"backup": True}), timeouts=only()) as w:
        serve(w)
        assert await ask(w, 2) == b"aa"
        await w.reload(settings_for(servers({}, {}), timeouts=only()))
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        await w.reload(settings_for(servers({"backup": True}, {}), timeouts=only()))
        assert await ask(w, 2) == b"bb"


async def test_a_client_that_is_stuck_to_a_backup_stays() -> None:
    """Its session lives there (as with HAProxy); new clients go to the primaries."""
    tables = servers({}, {"backup": True})
    sticky = Balance(sticky_cookie="route")
    async with world(upstreams=tables, timeouts=only(), balance=sticky) as w:
        serve(w)
        w.proxy.pools["default"].drain(A)
        async with await w.client() as client:
            answer = await client.ask(GET)
            assert answer.body == b"b"
            cookie = answer[b"set-cookie"].partition(b";")[0]
            w.proxy.pools["default"].undrain(A)
            stuck = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie
            assert (await client.ask(stuck)).body == b"b"
            assert (await client.ask(GET)).body == b"a"


async def test_only_backups() -> None:
    """A pool without a primary works all the same."""
    tables = servers({"backup": True}, {"backup": True})
    async with world(upstreams=tables, timeouts=only()) as w:
        serve(w)
        assert await ask(w, 4) == b"abab"
        assert ("default", C) not in w.proxy.stats.upstreams
