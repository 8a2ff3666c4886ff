"""Configuration: what loads, what is refused, and that every refusal names file, key and reason.

Numbers are in `test_numbers`, upstreams and what happens when they fail in `test_upstreams` and
`test_failures`.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import attrs
import pytest

from support.config_documents import load, refusal
from trio_proxy.http.addresses import TcpAddress, UnixAddress
from trio_proxy.settings import (
    Balance,
    BreakerSettings,
    Dns,
    HeaderSettings,
    Health,
    Limits,
    LoggingSettings,
    PoolSettings,
    RateLimitSettings,
    Retry,
    RouteSettings,
    Settings,
    Timeouts,
    UpstreamSettings,
)
from trio_proxy.settings.load.problems import NOT_SUPPORTED
from trio_proxy.settings.load.toml import ConfigError, parse

# What loads


def test_an_upstream_is_all_that_is_needed() -> None:
    upstream = UpstreamSettings(host="127.0.0.1", port=9001)
    assert load("") == Settings(upstreams=(upstream,))


def test_listen_is_one_string_or_an_array() -> None:
    assert load("listen = '[::1]:0'").listen == (TcpAddress("::1", 0),)
    both = load("listen = ['localhost:80', 'unix:/run/proxy.sock']").listen
    assert both == (TcpAddress("localhost", 80), UnixAddress("/run/proxy.sock"))


def test_port_0_may_stand_twice_because_it_is_a_new_port_each_time() -> None:
    settings = load("listen = ['127.0.0.1:0', '127.0.0.1:0']\nmetrics_listen = '127.0.0.1:0'")
    assert settings.listen == (TcpAddress("127.0.0.1", 0),) * 2


def test_trusted_proxies_are_networks_addresses_or_unix() -> None:
    settings = load("headers.trusted_proxies = ['10.0.0.0/8', '192.0.2.1', 'fd00::/8', 'unix']")
    networks = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.1/32", "fd00::/8")))
    assert settings.headers.trusted_proxies == (*networks, "unix")


@pytest.mark.parametrize(("text", "workers"), [("1", 1), ("1024", 1024), ("'auto'", "auto")])
def test_workers_are_a_number_or_auto(text: str, workers: int | str) -> None:
    assert load(f"workers = {text}").workers == workers


# What is refused, and how it is said

WORKERS = 'expected an integer from 1 to 1024, or "auto"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen = 8080", "listen: is 8080 (expected an address or an array of addresses)"),
        ("listen = []", "listen: is empty (expected at least one address)"),
        ("listen = '1.2.3.4'", 'listen: is "1.2.3.4" (expected host:port or unix:/path)'),
        ("listen = ['a:1', 2]", "listen[1]: is 2 (expected host:port or unix:/path)"),
        ("listen = 'a:65536'", 'listen: is "a:65536" (expected a port from 0 to 65535)'),
        (
            "listen = ['[::1]:1', '[0::1]:1']",
            "listen[1]: [::1]:1 is there already, at index 0 (expected each address once)",
        ),
        (
            "listen = 'A:1'\nmetrics_listen = 'a:1'",
            "metrics_listen: a:1 is both listen and metrics_listen (expected different addresses)",
        ),
        ("pid_file = ''", 'pid_file: is "" (expected a file name)'),
        ("workers = 0", f"workers: is 0 ({WORKERS})"),
        ("workers = 1025", f"workers: is 1025 ({WORKERS})"),
        ("workers = 'many'", f'workers: is "many" ({WORKERS})'),
        ("workers = true", f"workers: is true ({WORKERS})"),
        ("workers = 2.0", f"workers: is 2.0 ({WORKERS})"),
        ("workers = ['auto']", f"workers: is an array ({WORKERS})"),
        ("timeouts = 5", "timeouts: is 5 (expected a table)"),
        (
            "headers.trusted_proxies = ['10.0.0.1/8']",
            'headers.trusted_proxies[0]: is "10.0.0.1/8", which is an address within a network'
            " (expected 10.0.0.0/8, or the address without a prefix length)",
        ),
        (
            "headers.trusted_proxies = '10.0.0.0/8'",
            'headers.trusted_proxies: is "10.0.0.0/8" (expected an array, as ["10.0.0.0/8"])',
        ),
        (
            "headers.trusted_proxies = [1]",
            "headers.trusted_proxies[0]: is 1"
            ' (expected a network as 10.0.0.0/8, an IP address, or "unix")',
        ),
        ("headers.host = 'x'", 'headers.host: is "x" (expected "preserve" or "upstream")'),
        (
            "headers.deadline_header = 'a b'",
            'headers.deadline_header: is "a b"'
            " (expected a header field name (RFC 9110 §5.1) of at most 64 characters)",
        ),
        (
            "headers.deadline_header = 'X_Deadline'",
            'headers.deadline_header: is "X_Deadline" (expected a name without underscores)',
        ),
        ("limits.queue = 'filo'", 'limits.queue: is "filo" (expected "fifo" or "lifo")'),
        ("limits.queue = 10", 'limits.queue: is 10 (expected "fifo" or "lifo")'),
        ("logging.access = 1", "logging.access: is 1 (expected true or false)"),
        ("logging.format = 'xml'", 'logging.format: is "xml" (expected "text" or "json")'),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize("text", ["", "upstreams = []", "[upstreams]\nhost = 'a'\nport = 1"])
def test_at_least_one_upstream_is_required(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml: upstreams: is (missing|empty|a table) "):
        parse(text, source="x.toml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "metrics_lisen = ''",
            'metrics_lisen: is not a known key (did you mean "metrics_listen"?)',
        ),
        ("timeouts.reed_ms = 1", 'timeouts.reed_ms: is not a known key (did you mean "read_ms"?)'),
        (
            "balance.sticky = 'x'",
            'balance.sticky: is not a known key (did you mean "sticky_cookie" or "sticky_secret"?)',
        ),
        ("[circuit_breaker]", 'circuit_breaker: is not a known key (did you mean "breaker"?)'),
        ("[rate-limit]", 'rate-limit: is not a known key (did you mean "rate_limit"?)'),
        (
            'dns."x\\ny" = 1',
            'dns."x\\ny": is not a known key (expected one of refresh_ms, nameservers)',
        ),
        ('dns."" = 1', 'dns."": is not a known key (expected one of refresh_ms, nameservers)'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("balance.drain_ms = 1", '"drain_ms" in [timeouts]'),
        ("path = '/healthz'", '"path" in [[routes]] or [health]'),
        ("max_fails = 3", '"max_fails" in [[upstreams]]'),
        ("[retry]\nkey = 'path'", '"key" in [balance] or [rate_limit]'),
        ("[logging]\nhost = 'a'", '"host" in [[upstreams]], [health] or [headers]'),
        ("[retry]\ntimeout_ms = 5", '"try_timeout_ms", or "timeout_ms" in [health]'),
        ("[logging]\nlisten = 'a:1'", '"listen" before the first table'),
        ("timeouts.limits = {}", "[limits]"),
        ("retry.upstreams = []", "[[upstreams]]"),
    ],
)
def test_a_known_key_below_the_wrong_header_is_told_where_it_belongs(text: str, guess: str) -> None:
    """A key for the top level, above all, is easily written below the header of a table."""
    assert refusal(text).endswith(f"is not a known key (did you mean {guess}?)")


@pytest.mark.parametrize("text", ["[[listeners]]", "listeners = 1"])
def test_a_planned_table_is_refused_and_not_ignored(text: str) -> None:
    assert refusal(text).endswith(": is not supported by this version (expected to be left out)")


def test_nothing_is_both_known_and_planned() -> None:
    assert set(NOT_SUPPORTED) == {Settings, PoolSettings, RouteSettings}
    for table, planned in NOT_SUPPORTED.items():
        assert not planned & set(attrs.fields_dict(table))


@pytest.mark.parametrize(
    "name", ["Host", "TE", "content-length", "X-Forwarded-For", "Forwarded", "Connection", "Via"]
)
def test_a_deadline_does_not_travel_in_a_field_that_the_proxy_handles(name: str) -> None:
    assert f'is "{name}", a field that' in refusal(f"headers.deadline_header = '{name}'")


def test_every_problem_is_reported_in_one_go() -> None:
    text = """
        listen = ["a:1", "a:1", "b"]
        metrics_listen = "a:1"
        pidfile = "x"
        health = {path = "healthz"}
        [[upstreams]]
        host = "a"
        port = 0
        weight = 0
        [[upstreams]]
        host = "b"
        port = 1
        [[upstreams]]
        host = "b"
        port = 1
        srv = 5
        [[upstreams]]
        host = "b"
        port = 1
        [balance]
        policy = "hashed"
        sticky_secret = "x"
        [breaker]
        error_statuses = ["5xx", "6xx"]
        [rate_limit]
        rate = "10/s"
        store = "x"
        [timeouts]
        read_ms = -1
        write_ms = "1"
        conect_ms = 1
        [limits]
        max_queue = true
        max_target_bytes = 40000
        [headers]
        trusted_proxies = ["10.0.0.0/8", "x"]
    """
    with pytest.raises(ConfigError) as caught:
        parse(text, source="x.toml")
    assert sorted(problem.path for problem in caught.value.problems) == [
        "balance.policy",
        "balance.sticky_secret",
        "breaker.error_statuses[1]",
        "headers.trusted_proxies[1]",
        "health.path",
        "limits.max_queue",
        "limits.max_target_bytes",
        "listen[1]",
        "listen[2]",
        "metrics_listen",
        "pidfile",
        "rate_limit.rate",
        "rate_limit.store",
        "timeouts.conect_ms",
        "timeouts.read_ms",
        "timeouts.write_ms",
        "upstreams[0].port",
        "upstreams[0].weight",
        "upstreams[2].srv",
        "upstreams[2].srv",
        "upstreams[3]",
    ]


# Classes constructed directly


UPSTREAMS = (UpstreamSettings(host="a", port=1),)


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (Timeouts, {"read_ms": True}, "read_ms: is true"),
        (Limits, {"max_head_bytes": 1024}, "max_target_bytes: is 8192, but"),
        (Balance, {"policy": "random"}, 'policy: is "random"'),
        (Balance, {"sticky_secret": "x"}, "sticky_secret: is of no use alone"),
        (Retry, {"on": ["connect"]}, "on: is an array (expected a tuple)"),
        (Health, {"expect": ()}, "expect: is empty (expected at least one status)"),
        (BreakerSettings, {"error_statuses": (500,)}, "error_statuses[0]: is 500"),
        (RateLimitSettings, {"rate": True}, "rate: is true"),
        (RateLimitSettings, {"store": "h:6379"}, "store: is not a Redis URL"),
        (Dns, {"nameservers": ("ns.example",)}, 'nameservers[0]: is "ns.example"'),
        (HeaderSettings, {"forwarded": 1}, "forwarded: is 1 (expected true or false)"),
        (HeaderSettings, {"trusted_proxies": ("::/0",)}, 'trusted_proxies[0]: is "::/0"'),
        (LoggingSettings, {"level": "INFO"}, 'level: is "INFO"'),
        (UpstreamSettings, {}, "has no address"),
        (Settings, {"upstreams": ()}, "upstreams: is missing"),
        (Settings, {"upstreams": []}, "upstreams: is an array (expected a tuple)"),
        (Settings, {"upstreams": ("a:1",)}, 'upstreams[0]: is "a:1" (expected UpstreamSettings)'),
        (Settings, {"upstreams": UPSTREAMS * 2}, "upstreams[1]: a:1 is there already"),
        (Settings, {"listen": ("a:1",)}, 'listen[0]: is "a:1" (expected TcpAddress or Unix'),
        (Settings, {"listen": (TcpAddress("a", True),)}, "listen[0]: is"),
        (Settings, {"listen": (TcpAddress("a", -1),)}, "listen[0]: is"),
        (Settings, {"metrics_listen": UnixAddress("")}, "metrics_listen: is"),
        (Settings, {"timeouts": {}}, "timeouts: is a table (expected Timeouts)"),
        (Settings, {"breaker": True}, "breaker: is true (expected BreakerSettings)"),
        (Settings, {"rate_limit": Retry()}, "rate_limit: is of type Retry (expected RateLimit"),
    ],
)
def test_a_class_refuses_what_a_file_may_not_say(
    table: Any, values: dict[str, Any], message: str
) -> None:
    defaults = {"upstreams": UPSTREAMS} if table is Settings else {}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        table(**{**defaults, **values})
