"""Whose token a request takes, and what the rate limit does with the answer of its store."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.client import Client
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import NO_BODY, Field, Request, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.middleware.ratelimit.ratelimit import (
    MAX_KEY_BYTES,
    RateLimited,
    client_key,
    header_key,
    key_maker,
)
from trio_proxy.policy.token_bucket import Grant, Rate, rate_limit_fields

RATE = Rate(10, 5)
ALLOWED = Grant(True, 5, 4, 0.1, 0.0)
REFUSED = Grant(False, 5, 0, 0.5, 0.1)
#: What no field value can have in it.
CONTROLS = bytes([*range(0x20), 0x7F])


def make_request(*fields: Field) -> Request:
    return Request(b"GET", b"/", b"1.1", b"a.test", fields, body=NO_BODY, keep_alive=True)


def from_client(client_ip: str) -> Client:
    return Client(client_ip, b"", b"http", b"a.test", is_trusted=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:db8:1:2::1", "2001:0DB8:1:2::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2"),
        ("unix:", "unix:"),
    ],
)
def test_addresses_of_one_client_share_a_bucket(one: str, other: str) -> None:
    """An IPv6 host has all of its /64, and an IPv4 address two spellings."""
    assert client_key(one) == client_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("::ffff:192.0.2.1", "::1"),
        ("unix:", "192.0.2.1"),
    ],
)
def test_different_clients_have_different_buckets(one: str, other: str) -> None:
    """IPv4 addresses that are mapped into one IPv6 /64 are clients of their own."""
    assert client_key(one) != client_key(other)


def test_the_same_value_of_a_field_shares_a_bucket_however_the_name_is_written() -> None:
    """Field names have no case (RFC 9110 §5.1)."""
    one = header_key(make_request((b"X-Api-Key", b"secret")), b"x-api-key")
    assert one == header_key(make_request((b"x-api-key", b"secret")), b"x-api-key")
    assert one != header_key(make_request((b"x-api-key", b"Secret")), b"x-api-key")


def test_requests_without_the_field_share_one_bucket() -> None:
    """It is not that of an empty value."""
    none = header_key(make_request(), b"x-api-key")
    assert none == header_key(make_request((b"Accept", b"secret")), b"x-api-key")
    assert none != header_key(make_request((b"X-Api-Key", b"")), b"x-api-key")


def test_a_repeated_field_counts_as_none() -> None:
    """A made-up value beside the real one must not open a bucket of its own."""
    twice = make_request((b"X-Api-Key", b"secret"), (b"x-api-key", b"made up"))
    assert header_key(twice, b"x-api-key") == header_key(make_request(), b"x-api-key")


@given(
    st.binary(max_size=10_000).map(lambda raw: raw.translate(None, CONTROLS)), st.integers(1, 64)
)
def test_a_key_is_short_and_does_not_show_the_value(value: bytes, length: int) -> None:
    """Values are chosen by clients, and may be credentials."""
    key = header_key(make_request((b"X" * length, value)), b"x" * length)
    assert len(key) <= MAX_KEY_BYTES
    assert key.isascii()
    assert len(value) < 4 or value not in key.rpartition(b":")[2]


def test_the_global_key_is_the_same_for_everybody() -> None:
    """One bucket for all."""
    key_of = key_maker("global")
    assert key_of(make_request(), from_client("192.0.2.1")) == key_of(
        make_request((b"X-Api-Key", b"secret")), from_client("::1")
    )


def test_keys_of_different_kinds_never_meet() -> None:
    """They may be in one store."""
    request, client = make_request((b"Client_ip", b"192.0.2.1")), from_client("192.0.2.1")
    kinds = ("client_ip", "global", "header:client_ip", "header:other")
    assert len({key_maker(kind)(request, client) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("key", ["", "header:", "header", "cookie:a", "client_ip:a"])
def test_an_unknown_kind_of_key_is_a_mistake(key: str) -> None:
    """The settings have been checked before."""
    with pytest.raises(ValueError, match="is no key of a rate limit"):
        key_maker(key)


class FixedBuckets:
    """A store that always says the same, and notes the keys it was asked for."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self.keys: list[bytes] = []

    async def take(self, key: bytes) -> Grant:
        self.keys.append(key)
        return self._grant


class NotedHandler:
    """Notes the requests that it gets, and answers with these fields."""

    def __init__(self, *fields: Field) -> None:
        self.requests: list[Request] = []
        self._fields = fields

    async def handle(self, exchange: Any, request: Request, sink: Any) -> None:
        self.requests.append(request)
        sink.start(ResponseHead(200, list(self._fields)))


class NotedSink:
    """Notes the fields of the answer."""

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def start(self, head: ResponseHead) -> None:
        self.fields = list(head.fields)


async def send(
    limited: RateLimited,
    handler: NotedHandler,
    client_ip: str = "192.0.2.1",
    fields: tuple[Field, ...] = (),
) -> tuple[Exchange, list[Field], ProxyError | None]:
    """The exchange, the fields of the answer, and the refusal."""
    exchange = Exchange(started_at=0, started_wall=0, peer=client_ip)
    exchange.client = from_client(client_ip)
    sink: Any = NotedSink()
    try:
        await limited.handle(exchange, make_request(*fields), sink, handler.handle)
    except ProxyError as exc:
        return exchange, sink.fields, exc
    return exchange, sink.fields, None


async def test_an_allowed_request_goes_on_to_the_handler_with_the_fields_added() -> None:
    """Others' fields for the answer stay."""
    handler, buckets = NotedHandler((b"Other", b"field")), FixedBuckets(ALLOWED)
    exchange, fields, error = await send(RateLimited(buckets, RATE, "client_ip"), handler)
    assert error is None
    assert fields == [(b"Other", b"field"), *rate_limit_fields(RATE, ALLOWED)]
    assert exchange.refusal_fields == rate_limit_fields(RATE, ALLOWED)
    assert buckets.keys == [b"client_ip:192.0.2.1"]
    assert len(handler.requests) == 1


async def test_a_refused_request_ends_there_and_is_told_when_to_come_again() -> None:
    """With the fields, and as the client's failure."""
    handler = NotedHandler()
    exchange, _, error = await send(RateLimited(FixedBuckets(REFUSED), RATE, "global"), handler)
    assert error is not None
    assert (error.source, error.reason) == (Source.CLIENT, Reason.RATE_LIMITED)
    assert error.retry_after == REFUSED.retry_after
    assert error.phase is exchange.phase is Phase.REQUEST_FILTER
    assert exchange.refusal_fields == rate_limit_fields(RATE, REFUSED)
    assert handler.requests == []


async def test_refusals_are_logged_by_name_once_a_second_without_the_fields_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A field's value may be a credential."""
    limited = RateLimited(FixedBuckets(REFUSED), RATE, "header:X-Api-Key")
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            await send(limited, NotedHandler(), fields=((b"X-Api-Key", b"secret"),))
    (record,) = caplog.records
    assert record.getMessage() == (
        "rate limit by header:X-Api-Key reached, of 192.0.2.1: request refused"
    )
