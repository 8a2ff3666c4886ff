"""A trusted peer's deadline shortens ours and never lengthens it; nobody else's is believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from support.failing import HANG, errors_of_each, play
from support.propagation import DEADLINE, GRPC, NAME, SENT, TRUSTING, get
from support.scenario import GET, ending, now_ms, only, refusal, timeouts
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import HeaderSettings

TRUSTING_WITHOUT_NAME = HeaderSettings(trusted_proxies=(ip_network("198.51.100.0/24"),))


# What a trusted peer tells us


@pytest.mark.parametrize("headers", [TRUSTING, TRUSTING_WITHOUT_NAME])
@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (b"300m", 300),
        (b"00000300m", 300),
        (b"250000u", 250),
        (b"99999999n", 99.999999),
        (b"2S", 2000),
        (b"0S", 0),
        (b"1H", 5000),
        (b"1M", 5000),
        (b"6S", 5000),
        (b"99999999H", 5000),
    ],
)
async def test_grpc_timeout_in_every_unit(
    headers: HeaderSettings, value: bytes, milliseconds: float
) -> None:
    """504 when it has passed, or when our own total has, whichever is sooner."""
    async with world(headers=headers, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        response = await (await w.client()).ask(get(b"grpc-timeout: " + value))
        assert now_ms() == milliseconds
        assert response.status == 504
        assert b"total deadline passed" in response.body
    assert timeouts(w) == {"total": 1}


@pytest.mark.parametrize(
    "value",
    [b"", b"5", b"S", b"-1S", b"1.5S", b"+1S", b"1s", b"1h", b"1 S", b"123456789S", b"1S, 1S"],
)
async def test_a_malformed_grpc_timeout_means_nothing(value: bytes) -> None:
    """Our own total holds."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        assert (await (await w.client()).ask(get(b"Grpc-Timeout: " + value))).status == 504
        assert now_ms() == 5000


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [(b"1", 1), (b"250", 250), (b"5000", 5000), (b"5001", 5000), (b"999999999999", 5000)],
)
async def test_the_header_of_a_trusted_peer_shortens_and_never_lengthens(
    value: bytes, milliseconds: int
) -> None:
    """Milliseconds, and our own 5 s at most; the upstream is told the same."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        client = await w.client()
        response = await client.ask(get(b"x-request-deadline-MS: " + value))
        assert (response.status, now_ms()) == (504, milliseconds)
        assert w.upstreams[0].requests[0].all(DEADLINE) == [b"%d" % milliseconds]
    assert ending(w.exchanges[0])[:2] == (504, Reason.TOTAL_TIMEOUT)


@pytest.mark.parametrize("value", [b"", b"soon", b"-1", b"1.5", b"0x10", b"1e3", b"1" * 13])
async def test_a_malformed_header_means_nothing(value: bytes) -> None:
    """And is not passed on: the upstream is told our own."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        w.upstreams[0].serve()
        await (await w.client()).ask(get(NAME.encode() + b": " + value))
        assert w.upstreams[0].requests[0].all(DEADLINE) == [b"5000"]


@pytest.mark.parametrize(
    ("header", "grpc", "milliseconds"), [(b"400", b"1S", 400), (b"1000", b"300m", 300)]
)
async def test_of_two_the_shorter_one_counts(header: bytes, grpc: bytes, milliseconds: int) -> None:
    """Both are told anew to the upstream."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        request = get(NAME.encode() + b": " + header, b"grpc-timeout: " + grpc)
        assert (await (await w.client()).ask(request)).status == 504
        assert now_ms() == milliseconds
        told = w.upstreams[0].requests[0]
        assert told[DEADLINE] == b"%d" % milliseconds
        assert told[GRPC] == b"%du" % (milliseconds * 1000)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"2H", 7200), (b"90M", 5400), (b"3M", 180), (b"45S", 45)]
)
async def test_without_a_total_of_ours_theirs_holds(value: bytes, seconds: int) -> None:
    """total_ms = 0 is no deadline, so any is shorter."""
    async with world(headers=TRUSTING, timeouts=only()) as w:
        play(w.upstreams[0], HANG)
        assert (await (await w.client()).ask(get(b"grpc-timeout: " + value))).status == 504
        assert now_ms() == seconds * 1000


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"1n", b"0u"),
        (b"99S", b"99000000u"),
        (b"100S", b"100000m"),
        (b"27H", b"97200000m"),
        (b"28H", b"100800S"),
        (b"99999999S", b"99999999S"),
        (b"99999999M", b"99999999M"),
        (b"99999999H", b"99999999H"),
    ],
)
async def test_what_is_left_is_told_in_the_finest_unit_that_it_fits_into(
    value: bytes, told: bytes
) -> None:
    """At most eight digits, rounded down."""
    async with world(headers=TRUSTING, timeouts=only()) as w:
        w.upstreams[0].serve()
        assert (await (await w.client()).ask(get(b"grpc-timeout: " + value))).body == b"ok"
        assert w.upstreams[0].requests[0][GRPC] == told


async def test_it_holds_for_one_request_only() -> None:
    """The next one on the same connection has the whole budget."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(get(NAME.encode() + b": 100"))
        await client.ask(GET)
        assert [each[DEADLINE] for each in w.upstreams[0].requests] == [b"100", b"5000"]


async def test_it_covers_the_body_too() -> None:
    """A response that drips is cut when it has passed."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        client = await w.client()
        await client.send(get(NAME.encode() + b": 700"))
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin")
        assert (await client.read_head()).status == 200
        assert await client.receive_all() == b"begin"
        assert now_ms() == 700


# Expired


@pytest.mark.parametrize("field", [b"X-Request-Deadline-Ms: 0", b"grpc-timeout: 0m"])
async def test_an_expired_one_is_answered_at_once(field: bytes) -> None:
    """504, and no upstream hears of it; the connection goes on."""
    async with world(headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert refusal(await client.ask(get(field))) == (
            504,
            b"trio-proxy; error=http_response_timeout",
            b"504 Gateway Timeout: total deadline passed (phase: route)\n",
        )
        assert now_ms() == 0
        assert w.upstreams[0].requests == []
        assert w.upstreams[0].peers == []
        assert (await client.ask(GET)).body == b"ok"
    assert ending(w.exchanges[0]) == (504, Reason.TOTAL_TIMEOUT, Source.CLIENT, Phase.ROUTE)
    assert w.exchanges[0].tries == []
    assert errors_of_each(w) == [{}]


# Whose deadline it is


async def test_a_peers_haste_is_no_failure_of_the_upstream() -> None:
    """It takes nobody out: an upstream that needs 200 ms is not down for a caller with 100."""
    async with world(upstreams=2, headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        for upstream in w.upstreams:
            upstream.serve(delay=0.2)
        client = await w.client()
        for _ in range(4):
            assert (await client.ask(get(NAME.encode() + b": 100"))).status == 504
        assert (await client.ask(GET)).body == b"ok"
    assert not [line for line in w.messages() if "down" in line]


async def test_our_own_total_deadline_is() -> None:
    """An upstream that does not answer within it has failed, also if the peer gave longer."""
    async with world(upstreams=2, headers=TRUSTING, timeouts=only(total_ms=500)) as w:
        play(w.upstreams[0], HANG)
        client = await w.client()
        assert (await client.ask(get(NAME.encode() + b": 9000"))).status == 504
    assert [line for line in w.messages() if "down" in line] == [
        "upstream 10.1.0.1:9000 down: total_timeout (max_fails=1 within 10 s), not used for 10 s"
    ]


# Untrusted peers


async def test_an_untrusted_peer_cannot_shorten_anything() -> None:
    """Its header is replaced by ours, and so is its grpc-timeout: the upstream may believe us."""
    async with world(headers=SENT, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        request = get(b"x_request_deadline-ms: 7", NAME.encode() + b": 100", b"Grpc-Timeout: 1m")
        assert (await (await w.client()).ask(request)).status == 504
        assert now_ms() == 5000
        told = w.upstreams[0].requests[0]
        assert told.all(DEADLINE) == [b"5000"]
        assert told.all(GRPC) == [b"5000000u"]
        assert b"x_request_deadline-ms" not in told


@pytest.mark.parametrize("field", [b"X-Request-Deadline-Ms: 0", b"grpc-timeout: 0n"])
async def test_an_untrusted_peer_cannot_expire_anything(field: bytes) -> None:
    """The request is answered as any."""
    async with world(headers=SENT, timeouts=only(total_ms=5000)) as w:
        w.upstreams[0].serve()
        assert (await (await w.client()).ask(get(field))).body == b"ok"


async def test_a_header_of_another_name_means_nothing() -> None:
    """Without deadline_header there is none, and what looks like one is passed on."""
    async with world(headers=TRUSTING_WITHOUT_NAME, timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], HANG)
        assert (await (await w.client()).ask(get(b"X-Request-Deadline-Ms: 9"))).status == 504
        assert now_ms() == 5000
        assert w.upstreams[0].requests[0][DEADLINE] == b"9"


async def test_grpc_timeout_without_a_deadline_is_passed_on_as_it_came() -> None:
    """A malformed one of a trusted peer, and nothing that we would know better."""
    async with world(headers=TRUSTING, timeouts=only()) as w:
        w.upstreams[0].serve()
        await (await w.client()).ask(get(b"grpc-timeout: soon"))
        assert w.upstreams[0].requests[0][GRPC] == b"soon"
