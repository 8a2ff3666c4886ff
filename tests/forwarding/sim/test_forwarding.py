"""Header fields on their way: hop-by-hop, forwarding, tracing, deadlines, and framing."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
import trio

from support.conversation import Message
from support.world import CLIENT, GET, World, world
from trio_proxy.settings import HeaderSettings, Timeouts

TRUSTING = HeaderSettings(trusted_proxies=(ip_network("198.51.100.0/24"),))


async def forwarded(w: World, head: bytes, body: bytes = b"") -> Message:
    """The request that an upstream gets for this one."""
    w.upstreams[0].serve()
    client = await w.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n" + body)
    assert (await client.read_response()).status == 200
    return w.upstreams[0].requests[-1]


async def test_hop_by_hop_fields_end_here() -> None:
    """Those of the standard and those that Connection names; the rest keeps order and case."""
    async with world() as w:
        request = await forwarded(
            w,
            b"B: 1\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n"
            b"X-Hop: 1\r\nA: 2\r\n"
            b"TE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: Basic x\r\nb: 3\r\n",
        )
        assert request.fields[:4] == [(b"Host", b"a"), (b"B", b"1"), (b"A", b"2"), (b"b", b"3")]
        assert all(name[:2] in (b"X-", b"Vi") for name, _ in request.fields[4:])


async def test_hop_by_hop_fields_of_a_response_end_here() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond(
            fields=b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a\r\n"
            b"Set-Cookie: b\r\nServer: s\r\nProxy-Authenticate: x\r\n"
        )
        response = await client.read_response()
        names = [name for name, _ in response.fields]
        assert names == [
            b"Set-Cookie",
            b"Set-Cookie",
            b"Server",
            b"Date",
            b"Via",
            b"X-Trace-ID",
            b"Content-Length",
        ]
        assert response.all(b"set-cookie") == [b"a", b"b"]


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Via", b"X-Forwarded-For"])
async def test_connection_cannot_take_away_what_the_proxy_writes(name: bytes) -> None:
    async with world() as w:
        request = await forwarded(
            w, b"Content-Length: 2\r\nConnection: close, " + name + b"\r\n", b"hi"
        )
        assert name in request
        assert request.body == b"hi"


@pytest.mark.parametrize(
    ("framing", "body", "sent"),
    [
        (b"Content-Length: 2\r\n", b"hi", (b"content-length", b"2")),
        (
            b"Transfer-Encoding: Chunked\r\n",
            b"2\r\nhi\r\n0\r\n\r\n",
            (b"transfer-encoding", b"chunked"),
        ),
    ],
)
async def test_exactly_one_framing_field_leaves(
    framing: bytes, body: bytes, sent: tuple[bytes, bytes]
) -> None:
    async with world() as w:
        request = await forwarded(w, framing, body)
        assert [
            (name.lower(), value)
            for name, value in request.fields
            if name.lower() in (b"content-length", b"transfer-encoding")
        ] == [sent]
        assert request.body == b"hi"


async def test_odd_values_pass_unchanged() -> None:
    """Empty ones, bytes above ASCII, tabs and quotes, both ways."""
    fields = b'A:\r\nB: \xe4\xff\r\nC: a\tb  c\r\nD: "\\"",;=\r\n'
    expected = [(b"A", b""), (b"B", b"\xe4\xff"), (b"C", b"a\tb  c"), (b"D", b'"\\"",;=')]
    async with world() as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request()).fields[1:5] == expected
        await upstream.respond(fields=fields)
        assert (await client.read_response()).fields[:4] == expected


# Host


async def test_the_host_is_preserved() -> None:
    async with world() as w:
        assert (await forwarded(w, b""))[b"host"] == b"a"


@pytest.mark.parametrize(
    ("upstream", "host"),
    [
        ("10.1.0.1:9000", b"10.1.0.1:9000"),
        ("app.internal:80", b"app.internal"),
        ("unix:/run/app.sock", b"localhost"),
    ],
)
async def test_the_host_can_be_the_upstreams(upstream: str, host: bytes) -> None:
    """What the client asked for is in X-Forwarded-Host then."""
    async with world(upstreams=[upstream], headers=HeaderSettings(host="upstream")) as w:
        request = await forwarded(w, b"")
        assert request[b"host"] == host
        assert request[b"x-forwarded-host"] == b"a"


# Where a request came from


SPOOFED = (
    b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
    b"X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Trace-ID: mine\r\n"
    b"X-Forwarded-Port: 1\r\nX_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n"
)


async def test_nobody_is_believed_by_default() -> None:
    """Whatever a stranger says of itself is replaced, underscores or not."""
    async with world() as w:
        request = await forwarded(w, SPOOFED)
        assert b"6.6.6.6" not in request.raw
        assert b"evil" not in request.raw
        assert b"mine" not in request.raw
        assert request[b"x-forwarded-for"] == CLIENT.encode()
        assert request[b"x-real-ip"] == CLIENT.encode()
        assert request[b"x-forwarded-proto"] == b"http"
        assert request[b"x-forwarded-host"] == b"a"
    assert w.exchanges[0].client_ip == CLIENT


async def test_a_trusted_chain_is_appended_to() -> None:
    async with world(headers=TRUSTING) as w:
        request = await forwarded(w, SPOOFED)
        assert request[b"x-forwarded-for"] == b"6.6.6.6, " + CLIENT.encode()
        assert request[b"x-real-ip"] == b"6.6.6.6"
        assert request[b"x-forwarded-proto"] == b"https"
        assert request[b"x-forwarded-host"] == b"evil"
        assert request[b"x-trace-id"] == b"mine"
        assert request[b"forwarded"] == b"for=6.6.6.6"
    assert w.exchanges[0].client_ip == "6.6.6.6"
    assert w.exchanges[0].trace_id == "mine"


async def test_forwarded_can_be_sent() -> None:
    async with world(headers=HeaderSettings(forwarded=True)) as w:
        request = await forwarded(w, SPOOFED)
        assert request[b"forwarded"] == b'for=198.51.100.7;proto=http;host="a"'


# Tracing


async def test_via_is_appended_both_ways() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 before\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        request = await upstream.read_request()
        assert request.all(b"via") == [b"1.0 before", b"1.1 trio-proxy"]
        await upstream.respond(fields=b"Via: 1.1 behind\r\n")
        assert (await client.read_response()).all(b"via") == [b"1.1 behind", b"1.1 trio-proxy"]


async def test_one_trace_id_from_end_to_end() -> None:
    """A fresh UUID for each request: at the upstream, at the client and in the log."""
    async with world() as w:
        client = await w.client()
        for _ in range(2):
            await client.send(GET)
            if not w.upstreams[0].peers:
                await w.upstreams[0].accept()
            (upstream,) = w.upstreams[0].peers
            sent = (await upstream.read_request())[b"x-trace-id"]
            await upstream.respond(fields=b"X-Trace-ID: something else\r\n")
            assert (await client.read_response())[b"x-trace-id"] == sent
            assert re.fullmatch(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sent)
    assert len({exchange.trace_id for exchange in w.exchanges}) == 2


@pytest.mark.parametrize("bad", [b"a b", b"x" * 200, b"<script>", b"a,b", b""])
async def test_a_malformed_trace_id_is_replaced(bad: bytes) -> None:
    """Even a trusted peer's: it goes into the log."""
    async with world(headers=TRUSTING) as w:
        request = await forwarded(w, b"X-Trace-ID: " + bad + b"\r\n")
        assert len(request[b"x-trace-id"]) == 36


# The deadline


async def test_the_rest_of_the_budget_is_sent_along() -> None:
    """A client cannot set it: its own field is replaced."""
    headers = HeaderSettings(deadline_header="X-Deadline-Ms")
    async with world(headers=headers, timeouts=Timeouts(total_ms=8000)) as w:
        request = await forwarded(w, b"X-Deadline-Ms: 99999\r\nX_Deadline_Ms: 99999\r\n")
        assert request[b"x-deadline-ms"] == b"8000"
        assert b"99999" not in request.raw


async def test_without_a_total_budget_there_is_nothing_to_send() -> None:
    headers = HeaderSettings(deadline_header="X-Deadline-Ms")
    async with world(headers=headers, timeouts=Timeouts(total_ms=0)) as w:
        assert b"x-deadline-ms" not in await forwarded(w, b"X-Deadline-Ms: 5\r\n")


async def test_a_trusted_peers_deadline_is_obeyed() -> None:
    """504 when it has passed, with the name of the budget that ran out."""
    headers = HeaderSettings(
        deadline_header="X-Deadline-Ms", trusted_proxies=TRUSTING.trusted_proxies
    )
    async with world(headers=headers) as w:
        client = await w.client()
        start = trio.current_time()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 2500\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request())[b"x-deadline-ms"] == b"2500"
        response = await client.read_response()
        assert trio.current_time() - start == pytest.approx(2.5)
        assert response.status == 504
        assert response[b"proxy-status"] == b"trio-proxy; error=http_response_timeout"


async def test_a_trusted_peers_deadline_cannot_lengthen_the_budget() -> None:
    headers = HeaderSettings(
        deadline_header="X-Deadline-Ms", trusted_proxies=TRUSTING.trusted_proxies
    )
    async with world(headers=headers, timeouts=Timeouts(total_ms=1000)) as w:
        request = await forwarded(w, b"X-Deadline-Ms: 99999\r\n")
        assert request[b"x-deadline-ms"] == b"1000"
