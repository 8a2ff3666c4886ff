"""Clients that are stuck to an upstream: when they wait for it, and when they are moved."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Message
from support.pools import A, B, answer, is_up, metric, serve, servers, told, tries
from support.scenario import GET, now_ms, only, until_ms
from support.world import World, settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Balance, BreakerSettings, Health, Limits, Retry

STICKY = Balance(sticky_cookie="route", sticky_secret="s")


def with_cookie_of(message: Message) -> bytes:
    """A request of the client that got this answer."""
    cookie = message[b"set-cookie"].partition(b";")[0]
    return b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n"


async def stuck_to_a(w: World) -> bytes:
    """A request of a client that is stuck to the first upstream."""
    first = await answer(w)
    assert first.body == b"a"
    return with_cookie_of(first)


async def test_a_retry_moves_the_client() -> None:
    """Its upstream refuses, another serves it, and the answer tells it so by a new cookie."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY, retry=Retry()) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].fault = "reset"
        moved = await answer(w, request)
        assert moved.body == b"b"
        assert with_cookie_of(moved) != request
        assert tries(w) == ["a", "aab"]  # once more on a fresh connection, then elsewhere
        every[0].fault = ""
        await until_ms(20_000)
        again = await answer(w, with_cookie_of(moved))
        assert again.body == b"b"
        assert b"set-cookie" not in again


async def test_a_retry_by_status_moves_the_client() -> None:
    """An upstream that says 503 to those who are stuck to it loses them."""
    retry = Retry(on=("503",))
    async with world(upstreams=2, timeouts=only(), balance=STICKY, retry=retry) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].status = 503
        moved = await answer(w, request)
        assert (moved.status, moved.body) == (200, b"b")
        assert moved.all(b"set-cookie") != []
        assert tries(w) == ["a", "ab"]


async def test_without_retries_the_next_request_is_moved() -> None:
    """The failure that takes the upstream out is an error, what follows is not."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].fault = "close"
        failed = await answer(w, request)
        assert failed.status == 502
        assert b"set-cookie" not in failed
        moved = await answer(w, request)
        assert moved.body == b"b"
        assert with_cookie_of(moved) != request
        assert tries(w) == ["a", "aa", "b"]  # the pooled connection, then a fresh one


async def test_an_upstream_whose_checks_fail() -> None:
    """Its clients are moved without any of them noticing."""
    checks = Health(path="/up", interval_ms=1000, fall=1)
    async with world(upstreams=2, timeouts=only(), balance=STICKY, health=checks) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].status = 500
        await until_ms(1100)
        assert not is_up(w, A)
        moved = await answer(w, request)
        assert (moved.status, moved.body) == (200, b"b")
        assert with_cookie_of(moved) != request


async def test_an_upstream_whose_breaker_is_open() -> None:
    """As one that is out."""
    breaker = BreakerSettings(min_requests=1)
    tables = servers({}, {}, max_fails=0)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, breaker=breaker) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].status = 500
        assert (await answer(w, request)).status == 500
        moved = await answer(w, request)
        assert (moved.status, moved.body) == (200, b"b")
        assert moved.all(b"set-cookie") != []


async def test_an_upstream_that_is_no_longer_configured() -> None:
    """Its clients are moved; if it returns they have forgotten it."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        serve(w)
        request = await stuck_to_a(w)
        await w.reload(settings_for([B], timeouts=only(), balance=STICKY))
        moved = await answer(w, request)
        assert moved.body == b"b"
        await w.reload(settings_for(2, timeouts=only(), balance=STICKY))
        assert [(await answer(w, with_cookie_of(moved))).body for _ in range(3)] == [b"b"] * 3
        assert (await answer(w, request)).body == b"a"


async def test_an_upstream_without_room_is_waited_for() -> None:
    """Rather than lose the session; a client that is stuck to nobody goes elsewhere meanwhile."""
    tables = servers({"max_conns": 1}, {})
    limits = Limits(queue_ms=0)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, limits=limits) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].delay = 1.0
        one, other, free = [await w.client() for _ in range(3)]
        await one.send(request)
        await trio.sleep(0.1)
        await other.send(request)
        await trio.sleep(0.1)
        assert w.proxy.pools["default"].queue_length == 1
        assert (await free.ask(GET)).body == b"b"
        assert now_ms() == 200
        assert (await one.read_response()).body == b"a"
        assert now_ms() == 1000
        second = await other.read_response()
        assert (second.body, now_ms()) == (b"a", 2000)
        assert b"set-cookie" not in second
        assert [len(each.requests) for each in every] == [3, 1]


async def test_the_wait_for_an_upstream_without_room_has_an_end() -> None:
    """503 at queue_ms, as for any other wait; the session stays where it is."""
    tables = servers({"max_conns": 1}, {})
    limits = Limits(queue_ms=500)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, limits=limits) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].delay = 2.0
        one, other = await w.client(), await w.client()
        await one.send(request)
        await trio.sleep(0.1)
        refused = await other.ask(request)
        assert (refused.status, now_ms()) == (503, 600)
        assert b"set-cookie" not in refused
        assert (await one.read_response()).body == b"a"
        assert (await other.ask(request)).body == b"a"
    assert w.proxy.stats.rejected[Reason.QUEUE_TIMEOUT] == 1


async def test_who_waits_for_an_upstream_that_dies_is_moved() -> None:
    """At the moment at which it is taken out, not at the end of the wait."""
    tables = servers({"max_conns": 1}, {})
    limits = Limits(queue_ms=0)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, limits=limits) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].delay, every[0].fault = 1.0, "reset"
        one, other = await w.client(), await w.client()
        await one.send(request)
        await trio.sleep(0.1)
        await other.send(request)
        assert (await one.read_response()).status == 502
        moved = await other.read_response()
        # A second for the pooled connection that is reset, and one for the fresh one.
        assert (moved.body, now_ms()) == (b"b", 2000)
        assert with_cookie_of(moved) != request


async def test_who_waits_for_an_upstream_that_is_removed_is_moved() -> None:
    """By that reload, not at the end of the wait."""
    tables = servers({"max_conns": 1}, {})
    limits = Limits(queue_ms=0)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, limits=limits) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].delay = 0.9
        one, other = await w.client(), await w.client()
        await one.send(request)
        await trio.sleep(0.1)
        await other.send(request)
        await trio.sleep(0.1)
        await w.reload(settings_for(tables[1:], timeouts=only(), balance=STICKY, limits=limits))
        moved = await other.read_response()
        assert (moved.body, now_ms()) == (b"b", 200)
        assert with_cookie_of(moved) != request
        assert (await one.read_response()).body == b"a"


async def test_who_waits_for_an_upstream_that_is_drained_goes_on_waiting() -> None:
    """It is stuck there as before."""
    tables = servers({"max_conns": 1}, {})
    limits = Limits(queue_ms=0)
    async with world(upstreams=tables, timeouts=only(), balance=STICKY, limits=limits) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].delay = 1.0
        one, other = await w.client(), await w.client()
        await one.send(request)
        await trio.sleep(0.1)
        await other.send(request)
        await trio.sleep(0.1)
        w.proxy.pools["default"].drain(A)
        assert (await one.read_response()).body == b"a"
        kept = await other.read_response()
        assert (kept.body, now_ms()) == (b"a", 2000)
        assert b"set-cookie" not in kept


async def test_a_draining_upstream_keeps_its_clients() -> None:
    """And gets no new ones: its sessions end by themselves."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        w.proxy.pools["default"].drain(A)
        for _ in range(4):
            kept = await answer(w, request)
            assert kept.body == b"a"
            assert b"set-cookie" not in kept
            assert (await answer(w)).body == b"b"
        assert [len(each.requests) for each in every] == [5, 4]
        assert metric(w, "proxy_upstream_draining", A) == 1


async def test_a_draining_upstream_that_dies_loses_its_clients() -> None:
    """A drain is no reason to insist on what does not work."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY, retry=Retry()) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        w.proxy.pools["default"].drain(A)
        every[0].fault = "reset"
        moved = await answer(w, request)
        assert moved.body == b"b"
        assert with_cookie_of(moved) != request
        assert tries(w) == ["a", "aab"]  # once more on a fresh connection, then elsewhere


async def test_the_only_upstream_while_it_drains() -> None:
    """Those that are stuck to it are served, others are turned away."""
    async with world(timeouts=only(), balance=STICKY) as w:
        serve(w)
        request = await stuck_to_a(w)
        w.proxy.pools["default"].drain(A)
        assert (await answer(w, request)).body == b"a"
        refused = await answer(w)
        assert (refused.status, refused[b"retry-after"]) == (503, b"1")


async def test_the_trial_of_an_upstream_by_a_client_that_is_stuck_to_it() -> None:
    """Whoever did not ask while it was out is served there again, and brings it back."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        every[0].fault = "reset"
        assert (await answer(w, request)).status == 502
        every[0].fault = ""
        await until_ms(10_000)
        kept = await answer(w, request)
        assert kept.body == b"a"
        assert b"set-cookie" not in kept
        assert told(w)[-1] == f"upstream {A} up: a request succeeded"


async def test_an_outage_of_all_leaves_clients_where_they_are() -> None:
    """With nobody better, theirs is the least bad: the session survives if the upstream does."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        request = await stuck_to_a(w)
        for each in every:
            each.fault = "reset"
        for _ in range(3):
            assert (await answer(w)).status == 502
        assert not any(is_up(w, upstream.name) for upstream in w.upstreams)
        for each in every:
            each.fault = ""
        kept = await answer(w, request)
        assert kept.body == b"a"
        assert b"set-cookie" not in kept


@pytest.mark.parametrize("policy", ["round_robin", "least_conn", "random_two", "ip_hash", "hash"])
async def test_a_cookie_goes_before_every_policy(policy: str) -> None:
    """Sessions of three upstreams stay apart, whatever the policy."""
    balance = Balance(policy=policy, sticky_cookie="route")
    async with world(upstreams=3, timeouts=only(), balance=balance) as w:
        every = serve(w)
        cookies = {
            w.proxy.pools["default"].member(upstream.name).cookie for upstream in w.upstreams
        }
        assert len(cookies) == 3
        for upstream, server in zip(w.upstreams, every, strict=True):
            value = w.proxy.pools["default"].member(upstream.name).cookie.encode()
            request = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: route=" + value + b"\r\n\r\n"
            for _ in range(5):
                assert (await answer(w, request)).body == server.body
        assert [len(each.requests) for each in every] == [5, 5, 5]
