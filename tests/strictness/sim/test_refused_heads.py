"""A head that is refused: the log can name it, the client can quote it, and nothing breaks."""

from __future__ import annotations

import re

import pytest

from support.conversation import Message
from support.world import GET, World, world
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.settings import Limits
from trio_proxy.telemetry.accesslog import access_text, format_access
from trio_proxy.telemetry.lines import LogFormat

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

REFUSED = {
    "102 fields": (
        b"GET /many HTTP/1.1\r\nHost: a\r\n" + b"A: 1\r\n" * 101 + b"\r\n",
        431,
        "GET /many HTTP/1.1",
    ),
    "bad host": (b"PUT /host HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "PUT /host HTTP/1.1"),
    "no host": (b"GET /none HTTP/1.1\r\n\r\n", 400, "GET /none HTTP/1.1"),
    "length and coding": (
        b"POST /both HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"
        b"\r\n",
        400,
        "POST /both HTTP/1.1",
    ),
    "bad version": (b"GET /new HTTP/3.7\r\nHost: a\r\n\r\n", 505, "GET /new HTTP/3.7"),
    "bad field": (b"GET /field HTTP/1.1\r\nHost : a\r\n\r\n", 400, "GET /field HTTP/1.1"),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "CONNECT a:1 HTTP/1.1"),
    "bare line feed": (b"GET /lf HTTP/1.1\r\nHost: a\nB: c", 400, "GET /lf HTTP/1.1"),
}


async def refused(w: World, head: bytes) -> tuple[Message, Exchange]:
    """The answer to a head that no upstream hears of, and the exchange."""
    client = await w.client()
    await client.send(head)
    answer = await client.read_response()
    assert answer[b"connection"] == b"close"
    client.send_eof()
    assert await client.receive_all() == b""
    assert not w.upstreams[0].listener.waiting
    return answer, w.exchanges[-1]


@pytest.mark.parametrize("what", REFUSED)
async def test_a_refused_head_is_named_in_the_log(what: str) -> None:
    """By method, target and version, under the trace id that the client is given."""
    head, status, named = REFUSED[what]
    async with world() as w:
        answer, exchange = await refused(w, head)
    assert answer.status == status
    line = access_text(exchange)
    assert f'198.51.100.7 "{named}" {status} ' in line
    assert " phase=read_head " in line
    trace_id = answer[b"x-trace-id"].decode()
    assert re.fullmatch(UUID, trace_id)
    assert f" trace_id={trace_id} " in line


async def test_each_refused_head_has_a_trace_id_of_its_own() -> None:
    """Neither the last request's of the connection, nor one that a client made up."""
    head = b"GET /%d HTTP/1.1\r\nHost: a b\r\nX-Trace-ID: mine\r\n\r\n"
    async with world() as w:
        w.upstreams[0].serve()
        ids = set()
        for number in range(3):
            client = await w.client()
            ids.add((await client.ask(GET))[b"x-trace-id"])
            await client.send(head % number)
            ids.add((await client.read_response())[b"x-trace-id"])
    assert len(ids) == 6
    assert b"mine" not in ids
    assert [e.target for e in w.exchanges if e.status == 400] == ["/0", "/1", "/2"]


GARBAGE = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "control": b'\x1b[31m /"\\ \x07\x00\xff\r\n\r\n',
    "latin": "GET /\u00e9\u00ff HTTP/1.1\r\n\r\n".encode("latin-1"),
    "injection": b'GET /x"\x0aGET / HTTP/1.1\r\n\r\n',
    "one word": b"hello\r\n\r\n",
    "spaces": b"     \r\n\r\n",
    "two lines": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "many words": b"a b c d e f\r\n\r\n",
    "long line": b"G" * 20_000,
    "long target": b"GET /" + b"\xfe" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_logged_in_escaped_words(what: str) -> None:
    """One printable line with three words of at most 256 bytes; an answer; no traceback."""
    async with world() as w:
        _, exchange = await refused(w, GARBAGE[what])
        assert not w.messages()[1:], "only the line that says where it listens"
    words = (exchange.method, exchange.target, exchange.version)
    assert all(words)
    assert len("".join(word for word in words if word != "-")) <= 256
    line = access_text(exchange)
    assert re.fullmatch(r"[ -~]+", line)
    quoted = re.match(r'198\.51\.100\.7 "((?:[^"\\]|\\x[0-9A-F]{2})*)" 4\d\d ', line)
    assert quoted is not None, line
    assert format_access(exchange, LogFormat.JSON).isprintable()


async def test_a_head_that_is_too_large_is_named_though_it_never_ended() -> None:
    """The request line was there, and that is what the log shows."""
    async with world(limits=Limits(max_head_bytes=1024, max_target_bytes=512)) as w:
        answer, exchange = await refused(w, b"GET /big HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 2000)
    assert answer.status == 431
    assert '"GET /big HTTP/1.1" 431 ' in access_text(exchange)
