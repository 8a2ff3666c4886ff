"""What passes a check and what does not, with the reason that the log gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from support.conversation import Speaker
from support.pools import A, is_up, serve, told
from support.scenario import OK, now_ms, only, send_for_ever, send_quietly, until_ms
from support.world import World, world
from trio_proxy.settings import Health
from trio_proxy.testing import SimNet

pytestmark = pytest.mark.usefixtures("no_chance")

#: The first check after 500 ms (see `no_chance`), and one verdict is enough.
CHECKS = {"path": "/up", "interval_ms": 1000, "timeout_ms": 300, "rise": 1, "fall": 1}


def answer_with(w: World, data: bytes) -> None:
    """Have the upstream answer every request with these bytes, and end the connection."""

    async def answer(peer: Speaker) -> None:
        await peer.read_request()
        await send_quietly(peer, data)

    w.upstreams[0].run(answer)


def reason(w: World) -> str:
    """Why the first upstream is down; empty if it is up."""
    start = f"upstream {A} down: health check failed: "
    lines = [line.removeprefix(start) for line in told(w) if line.startswith(start)]
    assert is_up(w, A) == (not lines)
    return "".join(lines)


async def verdict(data: bytes, **rules: object) -> str:
    """What the first check says of an upstream that answers with these bytes."""
    checks = Health(**{**CHECKS, **rules})  # type: ignore[arg-type]
    async with world(timeouts=only(), health=checks) as w:
        answer_with(w, data)
        await trio.sleep(0.501)
        return reason(w)


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % code


@pytest.mark.parametrize(
    ("expect", "code", "expected"),
    [
        (("2xx", "3xx"), 200, ""),
        (("2xx", "3xx"), 204, ""),
        (("2xx", "3xx"), 301, ""),
        (("2xx", "3xx"), 404, "status 404"),
        (("2xx", "3xx"), 503, "status 503"),
        (("200",), 200, ""),
        (("200",), 204, "status 204"),
        (("200", "401"), 401, ""),
        (("4xx",), 200, "status 200"),
    ],
)
async def test_expected_statuses(expect: tuple[str, ...], code: int, expected: str) -> None:
    """Those that are listed, by number or by class, and no other."""
    assert await verdict(status(code), expect=expect) == expected


NOT_THERE = "the expected text is not in the body"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"


def of_length(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (of_length(b"all is well here"), ""),
        (of_length(b"all is WELL here"), NOT_THERE),
        (of_length(b""), NOT_THERE),
        (CHUNKED + b"6\r\nall is\r\n7\r\n w\xc3\xa4ll \r\n0\r\n\r\n", NOT_THERE),
        (CHUNKED + b"8\r\nall is w\r\n3\r\nell\r\n0\r\n\r\n", ""),
        (TO_THE_END + b"all is well", ""),
        (TO_THE_END + b"all is", NOT_THERE),
        (b"HTTP/1.0 200 OK\r\n\r\nall is well", ""),
        (of_length(b"x" * 65_529 + b"is well"), ""),
        (of_length(b"x" * 65_530 + b"is well"), NOT_THERE),
        (of_length(b"x" * 200_000 + b"is well"), NOT_THERE),
        (b"HTTP/1.1 204 No Content\r\n\r\n", NOT_THERE),
        (of_length(b"is well").replace(b"200", b"500"), "status 500"),
    ],
)
async def test_expected_text(data: bytes, expected: str) -> None:
    """Looked for in the first 64 KiB of the body, however it is framed."""
    assert await verdict(data, expect_body="is well") == expected


async def test_expected_text_beyond_ascii() -> None:
    """It is UTF-8."""
    assert await verdict(of_length("läuft 👍".encode()), expect_body="läuft 👍") == ""


async def test_text_that_arrives_byte_by_byte() -> None:
    """The pieces that the network makes of a body do not matter."""
    checks = Health(**CHECKS, expect_body="is well")  # type: ignore[arg-type]
    net = SimNet(fragment=True, latency=0.001)
    async with world(timeouts=only(), health=checks, network=net) as w:
        answer_with(w, CHUNKED + b"8\r\nall is w\r\n3\r\nell\r\n0\r\n\r\n")
        await until_ms(700)
        assert reason(w) == ""


async def test_text_that_has_come_is_enough() -> None:
    """The rest of an endless body is not waited for."""
    checks = Health(**CHECKS, expect_body="is well")  # type: ignore[arg-type]
    async with world(timeouts=only(), health=checks) as w:

        async def stream(peer: Speaker) -> None:
            await peer.read_request()
            await peer.send(CHUNKED + b"8\r\nis well \r\n")
            await send_for_ever(peer, b"1\r\n.\r\n", 0.05)

        w.upstreams[0].run(stream)
        await until_ms(900)
        assert reason(w) == ""


async def test_a_body_that_nobody_looks_at() -> None:
    """Without expect_body the head is all that is waited for."""
    async with world(timeouts=only(), health=Health(**CHECKS)) as w:  # type: ignore[arg-type]
        peer = await w.upstreams[0].accept()
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning")
        assert await peer.receive_some() == b""
        assert now_ms() == 500
        assert reason(w) == ""


async def test_interim_answers_are_passed_over() -> None:
    """An early hint is no verdict."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    assert await verdict(hint + OK) == ""
    assert await verdict(hint + status(500)) == "status 500"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "closed before the response head was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed before the response head was complete"),
        (b"220 smtp.example ESMTP\r\n\r\n", "malformed response: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "malformed response: "),
    ],
)
async def test_what_is_no_answer(data: bytes, expected: str) -> None:
    """Half a head, another protocol, a head without end."""
    found = await verdict(data)
    assert found.startswith(expected)
    assert "\n" not in found


async def test_a_malformed_body() -> None:
    """It matters where a text is looked for."""
    broken = CHUNKED + b"what?\r\n"
    assert await verdict(broken) == ""
    assert (await verdict(broken, expect_body="is well")).startswith("malformed response: ")


Fault = Callable[[World], Awaitable[None]]


async def refuses(w: World) -> None:
    w.net.refuse(A)


async def is_a_black_hole(w: World) -> None:
    w.net.blackhole(A)


async def accepts_and_hangs(w: World) -> None:
    serve(w)[0].fault = "hang"


async def does_not_even_accept(w: World) -> None:
    pass


async def hangs_in_the_head(w: World) -> None:
    w.upstreams[0].run(lambda peer: send_for_ever(peer, b"HTTP/1.1 200 OK\r\nX: ", 3600))


async def drips(w: World) -> None:
    w.upstreams[0].run(lambda peer: send_for_ever(peer, b"HTTP/1.1 200 OK\r\n"[:1], 0.2))


async def resets(w: World) -> None:
    serve(w)[0].fault = "reset"


@pytest.mark.parametrize(
    ("fault", "at", "expected"),
    [
        (refuses, 500, "cannot connect: [Errno 111] Connection refused: 10.1.0.1:9000"),
        (resets, 500, "connection failed: [Errno 104] Connection reset by peer"),
        (is_a_black_hole, 800, "no answer within 300 ms"),
        (accepts_and_hangs, 800, "no answer within 300 ms"),
        (does_not_even_accept, 800, "no answer within 300 ms"),
        (hangs_in_the_head, 800, "no answer within 300 ms"),
        (drips, 800, "no answer within 300 ms"),
    ],
)
async def test_faults(fault: Fault, at: float, expected: str) -> None:
    """Each is known within timeout_ms, which is the check's own deadline, and leaves nothing."""
    async with world(timeouts=only(), health=Health(**CHECKS)) as w:  # type: ignore[arg-type]
        await fault(w)
        await until_ms(at - 1)
        assert reason(w) == ""
        await until_ms(at + 1)
        assert reason(w) == expected
        await trio.sleep(0.1)
        assert w.proxy_streams() == []


async def test_the_reason_is_that_of_the_last_failure() -> None:
    """Of three different ones the third."""
    checks = Health(**{**CHECKS, "fall": 3})  # type: ignore[arg-type]
    async with world(timeouts=only(), health=checks) as w:
        (server,) = serve(w)
        for number, code in enumerate((500, 503, 404)):
            server.status = code
            await until_ms(number * 1000 + 501)
        assert reason(w) == "status 404"


async def test_a_slow_check_moves_the_next_one() -> None:
    """The interval begins when a check has ended, so that two never overlap."""
    checks = Health(**{**CHECKS, "timeout_ms": 5000})  # type: ignore[arg-type]
    async with world(timeouts=only(), health=checks) as w:
        (server,) = serve(w)
        server.delay = 3.0
        await until_ms(20_000)
        assert server.most == 1
        assert len(server.requests) == 5
        assert reason(w) == ""
