"""The configurations that are published: the shipped files, and the sample of every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli

from trio_proxy.http.addresses import TcpAddress, UnixAddress
from trio_proxy.settings import (
    Balance,
    BreakerSettings,
    Dns,
    HeaderSettings,
    Health,
    Limits,
    LoggingSettings,
    PoolLimits,
    PoolSettings,
    RateLimitSettings,
    Retry,
    Settings,
    Timeouts,
    UpstreamSettings,
)
from trio_proxy.settings.load.toml import load_file, parse
from trio_proxy.settings.table import table_of

CONF = Path(__file__).parents[3] / "conf"
REFERENCE = CONF / "reference.toml"

#: The published format, word for word.
SAMPLE = """
listen = "127.0.0.1:8080"            # or a list; "unix:/run/proxy.sock"
metrics_listen = "127.0.0.1:8081"    # optional; no metrics port without it
pid_file = "proxy.pid"               # optional

[[upstreams]]
host = "127.0.0.1"                   # or unix = "/run/app.sock"
port = 9001
weight = 1                           # ≥ 1
max_conns = 100                      # default: limits.max_conns_per_upstream
max_fails = 1                        # failures within fail_timeout_ms …
fail_timeout_ms = 10000              # … that take it out, and for how long; max_fails = 0: never
backup = false                       # used only when no other is available
slow_start_ms = 0                    # weight ramps up over this long after it comes back

[timeouts]                           # milliseconds; 0 = none
connect_ms = 1000
read_ms = 15000                      # each wait for bytes from the upstream
write_ms = 15000                     # each wait for a peer to take bytes
total_ms = 30000                     # the whole exchange, queueing and retries included (not a tunnel)
head_ms = 10000                      # a client sending its request head
body_ms = 15000                      # each wait for bytes of a client's body
idle_ms = 75000                      # an idle client connection
upstream_idle_ms = 60000             # an idle pooled upstream connection
tunnel_idle_ms = 300000              # an upgraded connection with no bytes either way
drain_ms = 30000                     # a graceful stop, a reload's old generation

[limits]
max_client_conns = 1000              # further clients wait in the backlog
max_conns_per_upstream = 100
max_queue = 1000                     # requests waiting for an upstream connection; beyond: 503
queue_ms = 5000                      # how long one waits; beyond: 503
max_head_bytes = 32768
max_header_fields = 100
max_target_bytes = 8192
max_body_bytes = 0                   # 0 = no limit; beyond: 413

[balance]
policy = "round_robin"               # weighted | least_conn | random_two | ip_hash | hash
key = "header:X-User"                # for hash: client_ip, path, uri, host, header:NAME, cookie:NAME
sticky_cookie = ""                   # name of a cookie that pins a client to an upstream

[retry]
attempts = 2                         # tries in all, each on another upstream while there is one
try_timeout_ms = 0                   # one try: dial, send, response head
on = ["connect", "reset", "timeout"] # also "502", "503", "504", "429"
unsafe_methods = false               # POST, PATCH, … after bytes were sent
replay_bytes = 65536                 # request body kept for a retry
budget_percent = 20                  # retries as a share of requests, with a floor of 10 per 10 s

[health]                             # active checks; off without a path
path = "/healthz"
interval_ms = 5000
timeout_ms = 1000
rise = 2
fall = 3
expect = ["2xx", "3xx"]

[breaker]                            # off unless given
window_ms = 10000
min_requests = 20
error_percent = 50
open_ms = 5000
half_open_requests = 3

[rate_limit]                         # off unless given
rate = 100                           # per second
burst = 200
key = "client_ip"                    # or "global", "header:NAME"

[headers]
trusted_proxies = []                 # CIDRs whose X-Forwarded-* / Forwarded / X-Trace-ID are believed
forwarded = false                    # also send RFC 7239 Forwarded
host = "preserve"                    # or "upstream"
deadline_header = ""                 # e.g. "X-Request-Deadline-Ms": remaining total budget, sent and (from trusted peers) obeyed

[logging]
level = "info"
format = "text"                      # or "json"
access = true
"""  # noqa: E501


def test_the_published_sample_is_accepted_and_means_what_it_says() -> None:
    """All of it is defaults, but for what has to be given."""
    settings = parse(SAMPLE, source="sample.toml")
    assert settings == Settings(
        listen=(TcpAddress("127.0.0.1", 8080),),
        metrics_listen=TcpAddress("127.0.0.1", 8081),
        pid_file="proxy.pid",
        upstreams=(UpstreamSettings(host="127.0.0.1", port=9001, max_conns=100),),
        timeouts=Timeouts(),
        limits=Limits(),
        balance=Balance(key="header:X-User"),
        retry=Retry(),
        health=Health(path="/healthz"),
        breaker=BreakerSettings(),
        rate_limit=RateLimitSettings(),
        dns=Dns(),
        headers=HeaderSettings(),
        logging=LoggingSettings(),
    )


def test_the_shipped_config_has_two_upstreams_and_metrics() -> None:
    settings = load_file(CONF / "proxy.toml")
    assert [str(each.address) for each in settings.upstreams] == [
        "127.0.0.1:9001",
        "127.0.0.1:9002",
    ]
    assert settings.listen == (TcpAddress("127.0.0.1", 8080),)
    assert settings.metrics_listen == TcpAddress("127.0.0.1", 8081)


# The reference

DEFAULTS = Settings(upstreams=(UpstreamSettings(host="127.0.0.1", port=9001),))
#: Keys without a default: None, which TOML cannot write, is what they are when left out.
OPTIONAL = {"metrics_listen", "pid_file", "srv", "unix", "max_conns", "breaker", "rate_limit"}
#: One of these ways to say where an upstream is excludes the others.
WAYS = {"host": ("host", "port"), "srv": ("srv",), "unix": ("unix",)}


def reference(way: str = "host") -> str:
    """The reference with all that is commented out, but for other ways to name an upstream."""
    text = re.sub(r"(?m)^# (\w+ = |\[\w+\])", r"\1", REFERENCE.read_text())
    others = {key for keys in WAYS.values() for key in keys} - set(WAYS[way])
    before, header, after = text.partition("\n[[upstreams]]\n")
    upstream, blank, rest = after.partition("\n\n")
    upstream = re.sub(rf"(?m)^({'|'.join(others)}) = ", r"# \1 = ", upstream)
    return before + header + upstream + blank + rest


def tables_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of a document by name, that of the first upstream and the top level included."""
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    return {**tables, "": document, "upstreams": document["upstreams"][0]}


#: Tables that have a reference of their own.
ELSEWHERE = {"pools", "routes", "middlewares"}


def classes() -> dict[str, Any]:
    found: dict[str, Any] = {"": Settings, "upstreams": UpstreamSettings}
    for name, each in attrs.fields_dict(attrs.resolve_types(Settings)).items():
        if table := table_of(each.type):
            found[name] = table
    return found


def test_the_reference_is_the_defaults() -> None:
    assert load_file(REFERENCE) == DEFAULTS


def test_the_reference_states_every_key() -> None:
    written: dict[str, set[str]] = {name: set() for name in classes()}
    for way in WAYS:
        for name, table in tables_of(tomli.loads(reference(way))).items():
            written[name] |= set(table)
    expected = {name: set(attrs.fields_dict(cls)) for name, cls in classes().items()}
    expected[""] -= ELSEWHERE
    assert written == expected


def test_the_example_of_pools_states_every_key_of_pools_and_routes() -> None:
    """It has all of what the reference leaves out; what is for two tables, in the first."""
    document = tomli.loads((CONF / "pools.toml").read_text())
    pools = document["pools"].values()
    assert {key for pool in pools for key in pool} == set(attrs.fields_dict(PoolSettings))
    keys = {key for pool in pools for key in pool.get("limits", {})}
    assert keys == set(attrs.fields_dict(PoolLimits))
    assert {key for route in document["routes"] for key in route} == {"path", "pool"}


def test_only_what_has_no_default_is_commented_out() -> None:
    live = tables_of(tomli.loads(REFERENCE.read_text()))
    assert set(live) == set(classes()) - OPTIONAL
    for name, table in live.items():
        assert set(table) == set(attrs.fields_dict(classes()[name])) - OPTIONAL - ELSEWHERE


def test_what_is_commented_out_is_valid_too() -> None:
    settings = parse(reference(), source="reference.toml")
    upstream = UpstreamSettings(
        host="127.0.0.1", port=9001, max_conns=DEFAULTS.limits.max_conns_per_upstream
    )
    assert settings == attrs.evolve(
        DEFAULTS,
        metrics_listen=TcpAddress("127.0.0.1", 8081),
        pid_file="proxy.pid",
        upstreams=(upstream,),
        breaker=BreakerSettings(),
        rate_limit=RateLimitSettings(),
    )


@pytest.mark.parametrize(
    ("way", "place"),
    [("unix", UnixAddress("/run/app.sock")), ("srv", "_http._tcp.app.example")],
)
def test_other_ways_to_name_an_upstream_are_valid_too(way: str, place: object) -> None:
    settings = parse(reference(way), source="reference.toml")
    assert settings.upstreams[0].place == place
