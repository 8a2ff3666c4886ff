"""The metrics port: what is counted, and how it is served.

Rendering happens in a worker thread, whose end an autojumping clock cannot await: here virtual time
runs at the pace of real time, and nothing waits for it to pass.
"""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from support.conversation import Message
from support.world import GET, METRICS, World, world

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n"
POOL = ("pool", "default")
UPSTREAM = (("upstream", "10.1.0.1:9000"),)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(rate=1.0)


async def scrape(w: World) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    response = await ask_metrics(w, SCRAPE)
    assert response.status == 200
    assert response[b"content-type"].startswith(b"text/plain")
    families = text_string_to_metric_families(response.body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def ask_metrics(w: World, request: bytes) -> Message:
    async with await w.client(address=METRICS) as client:
        return await client.ask(request)


async def test_the_counters_after_some_exchanges(clock: MockClock) -> None:
    """Two answers, a refused request and a failed one; scrapes count nothing."""
    async with world(metrics_listen=METRICS) as w:
        w.upstreams[0].serve(b"hello")
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 200
            assert (await client.ask(GET)).status == 200
            w.net.refuse(w.upstreams[0].name)
            w.proxy.pools["default"].close_idle()
            assert (await client.ask(GET)).status == 502
            bad = await client.ask(b"GET / HTTP/1.1\r\n\r\n")
            assert bad.status == 400
            assert await client.receive_all() == b""
        await scrape(w)
        samples = await scrape(w)
        sent = sum(exchange.bytes_sent for exchange in w.exchanges)
        received = sum(exchange.bytes_received for exchange in w.exchanges)
    expected = {
        ("proxy_requests_total", ()): 4,
        ("proxy_requests_parse_errors_total", ()): 1,
        ("proxy_responses_total", (("status_class", "2xx"),)): 2,
        ("proxy_responses_total", (("status_class", "3xx"),)): 0,
        ("proxy_responses_total", (("status_class", "4xx"),)): 1,
        ("proxy_responses_total", (("status_class", "5xx"),)): 1,
        ("proxy_request_duration_seconds_count", ()): 4,
        ("proxy_bytes_sent_total", ()): sent,
        ("proxy_bytes_received_total", ()): received,
        ("proxy_upstream_requests_total", (POOL, *UPSTREAM)): 3,
        ("proxy_upstream_errors_total", (POOL, ("type", "connection_refused"), *UPSTREAM)): 1,
        ("proxy_upstream_errors_total", (POOL, ("type", "timeout"), *UPSTREAM)): 0,
        ("proxy_timeout_errors_total", (("type", "read"),)): 0,
        ("proxy_upstream_duration_seconds_count", (POOL, *UPSTREAM)): 2,
        ("proxy_client_connections", ()): 0,
        ("proxy_requests_in_flight", ()): 0,
        ("proxy_upstream_connections", (POOL, ("state", "active"), *UPSTREAM)): 0,
        ("proxy_upstream_connections", (POOL, ("state", "idle"), *UPSTREAM)): 0,
        ("proxy_upstream_up", (POOL, *UPSTREAM)): 1,
        ("proxy_queue_length", (("pool", "default"),)): 0,
        ("proxy_orphaned_upstreams", ()): 0,
        ("proxy_config_reloads_total", (("result", "success"),)): 0,
    }
    assert {key: samples.get(key) for key in expected} == expected


async def test_the_gauges_while_a_request_is_under_way(clock: MockClock) -> None:
    async with world(metrics_listen=METRICS) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        samples = await scrape(w)
        assert samples["proxy_client_connections", ()] == 1
        assert samples["proxy_requests_in_flight", ()] == 1
        assert samples["proxy_upstream_connections", (POOL, ("state", "active"), *UPSTREAM)] == 1
        await upstream.respond()
        await client.read_response()
        samples = await scrape(w)
        assert samples["proxy_requests_in_flight", ()] == 0
        assert samples["proxy_upstream_connections", (POOL, ("state", "active"), *UPSTREAM)] == 0
        assert samples["proxy_upstream_connections", (POOL, ("state", "idle"), *UPSTREAM)] == 1


async def test_head_and_query_are_served_and_nothing_else() -> None:
    """Only /metrics, only GET and HEAD; the wrong ones need no worker thread."""
    async with world(metrics_listen=METRICS) as w:
        assert (await ask_metrics(w, b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")).status == 404
        response = await ask_metrics(
            w, b"POST /metrics HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n"
        )
        assert response.status == 405
        assert response[b"allow"] == b"GET, HEAD"
        assert w.proxy.stats.requests_total == 0


async def test_a_scraper_may_use_head_and_a_query(clock: MockClock) -> None:
    async with world(metrics_listen=METRICS) as w:
        scraper = await w.client(address=METRICS)
        response = await scraper.ask(b"HEAD /metrics?x=y HTTP/1.1\r\nHost: m\r\n\r\n")
        assert response.status == 200
        assert int(response[b"content-length"]) > 1000
        assert (await scraper.ask(SCRAPE)).body.startswith(b"#")
        scraper.close()


async def test_the_metrics_port_is_as_strict_as_the_other() -> None:
    async with world(metrics_listen=METRICS) as w:
        response = await ask_metrics(w, b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert response.status == 400
        assert w.proxy.stats.requests_total == 0


async def test_the_proxy_port_has_no_metrics() -> None:
    """There /metrics is the upstream's."""
    async with world(metrics_listen=METRICS) as w:
        w.upstreams[0].serve(b"mine")
        assert (await (await w.client()).ask(SCRAPE)).body == b"mine"
