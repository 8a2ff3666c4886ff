"""Bytes for the wire: valid messages, weird ones, mutated ones, and plain noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from attrs import frozen
from hypothesis import strategies as st

from support.llhttp_oracle import METHODS
from trio_proxy.http.messages import Field

CRLF = b"\r\n"

#: What attackers put into messages.
SPICE = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\x00", b"\x0b", b"\x7f", b" ", b"\r\n "),
        *(
            b"\t",
            b":",
            b",",
            b";",
            b"0",
            b"5",
            b"-",
            b"+",
            b"0x",
            b"chunked",
            b"X: 1\r\n",
            b"\r\n ",
        ),
        *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Transfer-Encoding : chunked\r\n", b"transfer_encoding: chunked\r\n", b"HTTP/1.1"),
        *(b"Host: b\r\n", b"Connection: close\r\n", b"Connection: content-length, host\r\n"),
        *(b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n"),
        *(b"GET /hidden HTTP/1.1\r\nHost: b\r\n\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"),
    ]
)

TOKENS = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=8).map(str.encode)
VALUE_BYTES = st.sampled_from([*b"\t !~,;:=\"'\\azAZ09\x80\xff"])
VALUES = st.lists(VALUE_BYTES, max_size=8).map(lambda codes: bytes(codes).strip(b" \t"))
FIELDS = st.lists(st.tuples(TOKENS.map(lambda token: b"X-" + token), VALUES), max_size=4)
BODIES = st.one_of(st.binary(max_size=40), st.lists(SPICE, max_size=3).map(b"".join))
TARGETS = st.one_of(
    st.sampled_from([b"/", b"//", b"/a?b=c", b"http://a/", b"http://a", b"/%2e%2e", b"/a\\b|<>"]),
    st.text("abc/?&=%._-~:@!$'()*+,;", max_size=12).map(lambda text: b"/" + text.encode()),
)


def _lines(fields: list[Field]) -> bytes:
    return b"".join(name + b": " + value + CRLF for name, value in fields)


_EXTENSION_VALUES = st.one_of(TOKENS, st.sampled_from([b'""', b'"a b"', b'"\\"x;\\\\"']))
_EXTENSIONS = st.lists(
    st.one_of(
        TOKENS.map(lambda name: b";" + name),
        st.tuples(TOKENS, _EXTENSION_VALUES).map(lambda pair: b";%s=%s" % pair),
    ),
    max_size=2,
).map(b"".join)


@frozen
class ChunkedBody:
    """A body in chunks, and what it says."""

    data: bytes
    content: bytes
    trailers: list[Field]


@st.composite
def chunked_bodies(draw: Callable[..., object]) -> ChunkedBody:
    """Well-formed: sizes in either case with leading zeros, extensions, trailers."""
    chunks = draw(st.lists(BODIES.filter(bool), max_size=3))
    sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"%06X"])
    data = b""
    for chunk in chunks:
        data += draw(sizes) % len(chunk) + draw(_EXTENSIONS) + CRLF + chunk + CRLF
    trailers = draw(FIELDS)
    zeros = draw(st.sampled_from([b"0", b"000"]))
    data += zeros + draw(_EXTENSIONS) + CRLF + _lines(trailers) + CRLF
    return ChunkedBody(data, b"".join(chunks), trailers)


@st.composite
def _with_body(draw: Callable[..., object], start: bytes, fields: list[Field]) -> bytes:
    kinds = ["none", "length"] if start.startswith(b"HTTP/1.0") else ["none", "length", "chunked"]
    kind = draw(st.sampled_from(kinds))
    body = b""
    if kind == "length":
        body = draw(BODIES)
        fields = [*fields, (b"Content-Length", b"%d" % len(body))]
    elif kind == "chunked":
        body = draw(chunked_bodies()).data
        fields = [*fields, (b"Transfer-Encoding", b"chunked")]
    return start + CRLF + _lines(draw(st.permutations(fields))) + CRLF + body


@st.composite
def valid_requests(draw: Callable[..., object]) -> bytes:
    """One well-formed request with its body."""
    start = b"%s %s HTTP/1.1" % (draw(st.sampled_from(METHODS)), draw(TARGETS))
    return draw(_with_body(start, [(b"Host", b"a"), *draw(FIELDS)]))


@st.composite
def valid_responses(draw: Callable[..., object]) -> bytes:
    """Interim responses and one final response."""
    statuses = st.sampled_from([b"100 Continue", b"103 Early Hints", b"102"])
    data = b""
    for status in draw(st.lists(statuses, max_size=2)):
        data += b"HTTP/1.1 " + status + CRLF + _lines(draw(FIELDS)) + CRLF
    status = draw(st.sampled_from([b"200 OK", b"404", b"204 ", b"304 Same", b"599 caf\xe9"]))
    version = draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 "]))
    return data + draw(_with_body(version + status, draw(FIELDS)))


@st.composite
def mutated(draw: Callable[..., object], source: st.SearchStrategy[bytes]) -> bytes:
    """Up to three insertions, deletions or replacements somewhere in a message."""
    data = draw(source)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        data = data[:at] + draw(st.one_of(SPICE, st.just(b""))) + data[at + gone :]
    return data


def splits(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, cut at positions taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 2000), max_size=8)
NOISE = st.one_of(st.binary(max_size=60), st.lists(SPICE, max_size=8).map(b"".join))
REQUEST_STREAMS = st.lists(mutated(valid_requests()), min_size=1, max_size=3).map(b"".join)
ANY_REQUESTS = st.one_of(REQUEST_STREAMS, mutated(valid_requests()), NOISE)
ANY_RESPONSES = st.one_of(valid_responses(), mutated(valid_responses()), NOISE)
