"""What the proxy adds to heads: Date, Via, a deadline; and requests that it will not pass on."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from ipaddress import ip_network

import pytest
import trio

from support.conversation import Message
from support.scenario import SWITCH, UPGRADE, post, started
from support.world import GET, World, world
from trio_proxy.http.errors import Reason
from trio_proxy.http.phases import Phase
from trio_proxy.settings import HeaderSettings, Limits, Timeouts
from trio_proxy.settings.load.toml import ConfigError, parse

DEADLINE = HeaderSettings(
    trusted_proxies=(ip_network("198.51.100.0/24"),), deadline_header="X-Request-Deadline-MS"
)


# Date and Via


@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_a_final_response_without_a_date_gets_one(status: int) -> None:
    """Today's, in the one format that RFC 9110 has for it."""
    async with world() as w:
        client, upstream = await started(w)
        await upstream.send(b"HTTP/1.1 %d Fine\r\n\r\n" % status)
        upstream.close()
        date = (await client.read_head())[b"date"].decode()
    assert date.endswith(" GMT")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60


@pytest.mark.parametrize("name", [b"Date", b"date"])
async def test_a_date_that_is_there_is_kept(name: bytes) -> None:
    """As it came, however old, and once."""
    async with world() as w:
        client, upstream = await started(w)
        old = b"Sun, 06 Nov 1994 08:49:37 GMT"
        await upstream.respond(fields=name + b": " + old + b"\r\n")
        assert (await client.read_response())[b"date"] == old


async def test_an_interim_response_gets_no_date() -> None:
    """Only the final one behind it does."""
    async with world() as w:
        client, upstream = await started(w)
        await upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        hints = await client.read_head()
        assert hints.fields == [(b"Link", b"</a>")]
        await upstream.respond()
        assert b"date" in await client.read_response()


async def test_a_switch_of_protocols_gets_no_date() -> None:
    async with world() as w:
        client, upstream = await started(w, UPGRADE)
        await upstream.send(SWITCH)
        head = await client.read_head()
        assert head.status == 101
        assert b"date" not in head


async def test_via_says_what_the_upstream_spoke() -> None:
    """Also to a client that speaks a newer version than that."""
    async with world() as w:
        client, upstream = await started(w)
        await upstream.send(b"HTTP/1.0 200 OK\r\nVia: 1.1 cache\r\nContent-Length: 0\r\n\r\n")
        response = await client.read_response()
        assert response.start == b"HTTP/1.1 200 OK"
        assert response.all(b"via") == [b"1.1 cache", b"1.0 trio-proxy"]


async def test_a_request_without_host_has_no_empty_forwarding_field() -> None:
    """HTTP/1.0 needs none; the upstream's own name stands in for Host."""
    headers = HeaderSettings(forwarded=True)
    async with world(headers=headers) as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
        (request,) = w.upstreams[0].requests
        assert b"x-forwarded-host" not in request
        assert request[b"host"] == b"10.1.0.1:9000"
        assert request[b"via"] == b"1.0 trio-proxy"
        assert request[b"forwarded"] == b"for=198.51.100.7;proto=http"


# Loops


def looped(times: int, *, one_field: bool) -> bytes:
    vias = [b"1.1 trio-proxy"] * times
    lines = [b", ".join(vias)] if one_field else vias
    fields = b"".join(b"Via: " + line + b"\r\n" for line in [b"1.1 other", *lines])
    return GET[:-2] + fields + b"\r\n"


@pytest.mark.parametrize("one_field", [True, False])
async def test_a_request_that_has_come_round_ten_times_is_a_loop(one_field: bool) -> None:
    """508, no upstream hears of it, and the connection goes on."""
    async with world() as w:
        client = await w.client()
        answer = await client.ask(looped(10, one_field=one_field))
        assert answer.start == b"HTTP/1.1 508 Loop Detected"
        assert answer[b"proxy-status"] == b"trio-proxy; error=proxy_loop_detected"
        assert not w.upstreams[0].listener.waiting
        w.upstreams[0].serve()
        assert (await client.ask(GET)).status == 200
    assert w.exchanges[0].tries == []
    assert w.exchanges[0].upstream == ""


@pytest.mark.parametrize("one_field", [True, False])
async def test_nine_times_may_be_a_long_way(one_field: bool) -> None:
    """It passes, and is the tenth time from here on."""
    async with world() as w:
        w.upstreams[0].serve()
        assert (await (await w.client()).ask(looped(9, one_field=one_field))).status == 200
        vias = b", ".join(w.upstreams[0].requests[0].all(b"via"))
        assert vias.count(b"trio-proxy") == 10


def config(listen: str, upstream: str) -> str:
    return f'listen = "{listen}"\n[[upstreams]]\n{upstream}\n'


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:9001", 'host = "127.0.0.1"\nport = 9001'),
        ("localhost:9001", 'host = "LocalHost"\nport = 9001'),
        ("[::1]:9001", 'host = "0:0::1"\nport = 9001'),
        ("unix:/run/x.sock", 'unix = "/run/x.sock"'),
    ],
)
def test_an_upstream_that_is_the_proxy_itself_is_a_problem(listen: str, upstream: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(config(listen, upstream), source="x.toml")
    (problem,) = caught.value.problems
    assert problem.path == "upstreams[0]"
    assert "is where the proxy itself listens" in problem.message


def test_another_port_of_the_same_host_is_none() -> None:
    """Nor is a port that the system chooses."""
    parse(config("127.0.0.1:9000", 'host = "127.0.0.1"\nport = 9001'), source="x.toml")
    parse(config("127.0.0.1:0", 'host = "127.0.0.1"\nport = 9001'), source="x.toml")


# The inherited deadline


async def ask_with_deadline(w: World, milliseconds: bytes, request: bytes = GET) -> Message:
    head, _, body = request.partition(b"\r\n\r\n")
    field = b"\r\nx-request-deadline-ms: " + milliseconds
    return await (await w.client()).ask(head + field + b"\r\n\r\n" + body)


@pytest.mark.parametrize("request_bytes", [GET, post(3) + b"abc"])
async def test_an_inherited_deadline_of_0_has_passed(request_bytes: bytes) -> None:
    """504 without a connection to any upstream."""
    async with world(headers=DEADLINE) as w:
        answer = await ask_with_deadline(w, b"0", request_bytes)
        assert answer.status == 504
        assert answer[b"proxy-status"] == b"trio-proxy; error=http_response_timeout"
        assert not w.upstreams[0].listener.waiting
        assert w.proxy.stats.timeouts["total"] == 1
    (exchange,) = w.exchanges
    assert exchange.tries == []
    assert exchange.error is not None
    assert exchange.error.reason is Reason.TOTAL_TIMEOUT
    assert exchange.ended_in is Phase.ROUTE


async def test_an_untrusted_peers_deadline_is_nothing() -> None:
    """Its request passes with the proxy's own deadline."""
    headers = HeaderSettings(deadline_header="X-Request-Deadline-MS")
    async with world(headers=headers, timeouts=Timeouts(total_ms=700)) as w:
        w.upstreams[0].serve()
        assert (await ask_with_deadline(w, b"0")).status == 200
        assert w.upstreams[0].requests[0][b"x-request-deadline-ms"] == b"700"


async def test_the_deadline_goes_on_under_its_configured_name() -> None:
    """Letter for letter, with what is left of it, whatever the spelling it came in."""
    async with world(headers=DEADLINE, timeouts=Timeouts(total_ms=9000)) as w:
        w.upstreams[0].serve()
        assert (await ask_with_deadline(w, b"500")).status == 200
        assert (await (await w.client()).ask(GET)).status == 200
        lines = [r.raw.partition(b"X-Request-Deadline-MS: ") for r in w.upstreams[0].requests]
        assert [line[2].partition(b"\r\n")[0] for line in lines] == [b"500", b"9000"]
        assert all(b"eadline-ms" not in r.raw for r in w.upstreams[0].requests)


async def test_a_deadline_that_passes_in_the_queue_sends_nothing() -> None:
    """The budget counts from the request on, wherever it is spent."""
    async with world(headers=DEADLINE, limits=Limits(max_conns_per_upstream=1)) as w:
        first, upstream = await started(w)
        answer = await ask_with_deadline(w, b"200")
        assert answer.status == 504
        assert trio.current_time() == 0.2
        await upstream.respond()
        assert (await first.read_response()).status == 200
        assert not upstream.stream.is_readable()
    assert w.exchanges[0].tries == []
