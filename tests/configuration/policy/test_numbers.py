"""Every number of the configuration: its bounds, and that nothing else passes for one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

import attrs
import pytest

from support.config_documents import UPSTREAM
from trio_proxy.settings import Limits, RateLimitSettings, Settings, Timeouts, UpstreamSettings
from trio_proxy.settings.load.toml import ConfigError, parse
from trio_proxy.settings.table import table_of

DAY = 24 * 60 * 60 * 1000

#: The least and the greatest of each integer.
BOUNDS = {
    **{f"timeouts.{each.name}": (0, DAY) for each in attrs.fields(Timeouts)},
    "limits.max_client_conns": (1, 1_000_000),
    "limits.max_conns_per_upstream": (1, 1_000_000),
    "limits.max_queue": (0, 1_000_000),
    "limits.queue_ms": (0, DAY),
    "limits.queue_target_ms": (1, DAY),
    "limits.max_head_bytes": (8192, 1_048_576),  # from 1024 on with a smaller max_target_bytes
    "limits.max_header_fields": (1, 10_000),
    "limits.max_target_bytes": (16, 32_768),  # to 1048576 with a larger max_head_bytes
    "limits.max_body_bytes": (0, 2**63 - 1),
    "upstreams.port": (1, 65_535),
    "upstreams.weight": (1, 65_535),
    "upstreams.max_conns": (1, 1_000_000),
    "upstreams.max_fails": (0, 1000),
    "upstreams.fail_timeout_ms": (1, DAY),
    "upstreams.slow_start_ms": (0, DAY),
    "retry.attempts": (1, 100),
    "retry.try_timeout_ms": (0, DAY),
    "retry.replay_bytes": (0, 1_073_741_824),
    "retry.budget_percent": (0, 1000),
    "health.interval_ms": (10, DAY),
    "health.timeout_ms": (1, DAY),
    "health.rise": (1, 1000),
    "health.fall": (1, 1000),
    "health.panic_percent": (0, 100),
    "breaker.window_ms": (100, DAY),
    "breaker.min_requests": (1, 1_000_000),
    "breaker.error_percent": (1, 100),
    "breaker.open_ms": (1, DAY),
    "breaker.half_open_requests": (1, 10_000),
    "rate_limit.burst": (1, 1_000_000),
    "rate_limit.max_keys": (1, 10_000_000),
    "dns.refresh_ms": (0, DAY),
}
#: Bounds that come from another key say so in other words.
BOUND_BY_ANOTHER = {"limits.max_head_bytes", "limits.max_target_bytes"}


def document(key: str, value: object) -> str:
    table, _, name = key.partition(".")
    if table != "upstreams":
        return f"{key} = {value}\n{UPSTREAM}"
    host = "host = '127.0.0.1'\n" + "port = 9001\n" * (name != "port")
    return f"[[upstreams]]\n{host}{name} = {value}\n"


def value_in(settings: Settings, key: str) -> object:
    table, _, name = key.partition(".")
    return getattr(
        settings.upstreams[0] if table == "upstreams" else getattr(settings, table), name
    )


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, source="x.toml")
    return str(caught.value).removeprefix("x.toml: ").replace("upstreams[0]", "upstreams")


def integer_keys() -> Iterator[str]:
    tables: dict[str, Any] = {
        name: table_of(each.type) for name, each in attrs.fields_dict(Settings).items()
    }
    tables["upstreams"] = UpstreamSettings
    for name, table in tables.items():
        for each in attrs.fields(attrs.resolve_types(table)) if table else ():
            if each.type is int or int in get_args(each.type):
                yield f"{name}.{each.name}"


def test_no_integer_is_without_bounds() -> None:
    attrs.resolve_types(Settings)
    assert set(integer_keys()) == set(BOUNDS)


@pytest.mark.parametrize("key", BOUNDS)
def test_an_integer_may_be_its_least_and_its_greatest(key: str) -> None:
    for value in BOUNDS[key]:
        assert value_in(parse(document(key, value), source="x.toml"), key) == value


@pytest.mark.parametrize("key", sorted(BOUNDS.keys() - BOUND_BY_ANOTHER))
def test_an_integer_out_of_bounds_is_refused_with_its_bounds(key: str) -> None:
    low, high = BOUNDS[key]
    for value in (low - 1, high + 1):
        expected = f"expected an integer from {low} to {high}"
        assert refusal(document(key, value)) == f"{key}: is {value} ({expected})"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            "{max_head_bytes = 4096, max_target_bytes = 4097}",
            "max_target_bytes: is 4097, but the whole head may have only 4096 bytes"
            " (expected at most max_head_bytes, 4096)",
        ),
        (
            "{max_head_bytes = 8191}",
            "max_target_bytes: is 8192, but the whole head may have only 8191 bytes"
            " (expected at most max_head_bytes, 8191)",
        ),
        (
            "{max_head_bytes = 1023, max_target_bytes = 16}",
            "max_head_bytes: is 1023 (expected an integer from 1024 to 1048576)",
        ),
        (
            "{max_head_bytes = 1048576, max_target_bytes = 1048577}",
            "max_target_bytes: is 1048577 (expected an integer from 16 to 1048576)",
        ),
    ],
)
def test_a_request_target_fits_into_a_head(table: str, problem: str) -> None:
    lines = refusal(f"limits = {table}\n{UPSTREAM}").splitlines()
    assert f"limits.{problem}" in lines[0]


@pytest.mark.parametrize("key", BOUNDS)
@pytest.mark.parametrize(
    "value", ["true", "1.0", "'1'", "nan", "[1]", "{}", "2020-01-01", f"0x{2**80:x}"]
)
def test_only_an_integer_is_an_integer(key: str, value: str) -> None:
    """Neither a bool nor a whole float nor digits in quotes."""
    assert refusal(document(key, value)).startswith(f"{key}: is ")


@pytest.mark.parametrize(
    "key",
    [
        "upstreams.backup",
        "upstreams.drain",
        "retry.unsafe_methods",
        "headers.forwarded",
        "headers.expose_upstream",
        "logging.access",
    ],
)
@pytest.mark.parametrize(
    ("value", "shown"), [("0", "0"), ("1", "1"), ("'yes'", '"yes"'), ("1.0", "1.0")]
)
def test_only_true_and_false_are_a_switch(key: str, value: str, shown: str) -> None:
    assert refusal(document(key, value)) == f"{key}: is {shown} (expected true or false)"
    assert value_in(parse(document(key, "true"), source="x.toml"), key) is True


@pytest.mark.parametrize("rate", [0.001, 0.5, 1, 1.5, 1_000_000])
def test_a_rate_may_be_a_fraction(rate: float) -> None:
    settings = parse(document("rate_limit.rate", rate), source="x.toml")
    assert settings.rate_limit == RateLimitSettings(rate=rate)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("-1", "-1"),
        ("0.0009", "0.0009"),
        ("1_000_001", "1000001"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("true", "true"),
        ("'10'", '"10"'),
        ("'10/s'", '"10/s"'),
        ("[10]", "an array"),
    ],
)
def test_a_rate_is_a_number_of_requests_per_second(value: str, shown: str) -> None:
    expected = "expected a number from 0.001 to 1000000"
    problem = f"rate_limit.rate: is {shown} ({expected})"
    assert refusal(document("rate_limit.rate", value)) == problem


def test_timeouts_are_known_by_short_names_in_seconds_and_0_is_infinity() -> None:
    text = f"timeouts = {{connect_ms = 1500, idle_ms = 0}}\n{UPSTREAM}"
    seconds = parse(text, source="x.toml").timeouts.seconds
    assert seconds["connect"] == 1.5
    assert seconds["idle"] == math.inf
    short_names = {each.name.removesuffix("_ms") for each in attrs.fields(Timeouts)}
    assert set(seconds) == short_names
    assert Limits(queue_ms=250).queue_seconds == 0.25
    assert Limits(queue_ms=0).queue_seconds == math.inf
