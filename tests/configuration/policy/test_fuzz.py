"""Whatever a configuration says, it loads or it is explained: `ConfigError` and nothing else."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.middleware.ratelimit.redis_connection import connection_maker
from trio_proxy.server import build
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings import PoolSettings, RouteSettings, Settings, UpstreamSettings
from trio_proxy.settings.load.problems import NOT_SUPPORTED
from trio_proxy.settings.load.toml import ConfigError, from_environment, parse
from trio_proxy.settings.places import is_redis_url
from trio_proxy.settings.table import table_of

# Imported late, it would take longer than hypothesis lets an example take.
with contextlib.suppress(ImportError):
    import coredis.pool  # noqa: F401

REFERENCE = (Path(__file__).parents[3] / "conf" / "reference.toml").read_text()
#: The reference with the optional tables in force.
WHOLE_REFERENCE = re.sub(r"(?m)^# (\w+ = |\[\w+\])", r"\1", REFERENCE)

TABLES: dict[str, Any] = {
    name: table
    for name, each in attrs.fields_dict(attrs.resolve_types(Settings)).items()
    if (table := table_of(each.type))
}

CLASSES: tuple[Any, ...] = (Settings, UpstreamSettings, PoolSettings, RouteSettings)
KEYS = [key for table in CLASSES for key in attrs.fields_dict(table)]
KEYS += [key for table in TABLES.values() for key in attrs.fields_dict(table)]
KEYS += [key for keys in NOT_SUPPORTED.values() for key in sorted(keys)]
WORDS = ["127.0.0.1:80", "unix:/a", "unix", "10.0.0.1/8", "round_robin", "hash", "info", "Host"]
WORDS += ["5xx", "503", "connect", "cookie:sid", "header:X-User", "client_ip", "lifo", "/healthz"]
WORDS += ["10.0.0.1", "_http._tcp.app", "redis://a/0", "redis://:p@a:0/b", ""]
scalars = (
    st.booleans()
    | st.integers(-1, 70_000)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(st.characters(codec="utf-8"), max_size=10)
    | st.dates()
)
keys = st.sampled_from(KEYS) | st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def tables(cls: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with keys that are right for the most part, and with any values."""
    own = st.sampled_from(list(attrs.fields_dict(cls)))
    likely = st.lists(st.sampled_from(WORDS), max_size=3) | scalars
    return st.dictionaries(own | keys, values, max_size=4) | st.dictionaries(own, likely)


names = st.sampled_from(["api", "web", "default"]) | keys
pools = st.fixed_dictionaries(
    {"upstreams": st.lists(tables(UpstreamSettings), max_size=2) | st.just([{"unix": "/a"}])},
    optional={name: tables(cls) for name, cls in TABLES.items() if hasattr(PoolSettings, name)},
) | tables(PoolSettings)
routes = st.fixed_dictionaries({"pool": names}, optional={"path": st.sampled_from(WORDS)}) | tables(
    RouteSettings
)

documents = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.lists(st.sampled_from(WORDS), max_size=3) | values,
        "upstreams": st.lists(tables(UpstreamSettings), max_size=3),
        "pools": st.dictionaries(names, pools, max_size=3),
        "routes": st.lists(routes, max_size=3),
        **{name: tables(cls) for name, cls in TABLES.items()},
    },
) | st.dictionaries(keys, values, max_size=8)


def toml(value: Any) -> str:
    """The value as TOML writes it within a line."""
    match value:
        case dict():
            pairs = (f"{quoted(key)} = {toml(inner)}" for key, inner in value.items())
            return "{" + ", ".join(pairs) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case datetime.date():
            return value.isoformat()
    return repr(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def assert_loads_or_explains(text: str) -> None:
    error = None
    try:
        found = parse(text, source="x.toml")
    except ConfigError as exc:
        error = exc
    if error is None:
        assert_usable(found)
    else:
        lines = str(error).splitlines()
        assert len(lines) == len(error.problems) == len(set(lines)) > 0
        assert all(re.fullmatch(r"x\.toml: (.+: )?.+ \(.+\)", line) for line in lines)


def assert_usable(found: Settings) -> None:
    """What a file may say can be built, and said again by a program."""
    assert attrs.evolve(found) == found
    for pool in found.every_pool.values():
        build.pool_rules(found, pool)
        build.budgets(found, pool)
    build.budgets(found)
    build.header_rules(found)
    build.head_limits(found)
    trio.run(RateLimits().prepare, found)


@given(documents)
def test_a_document_of_any_keys_and_values_loads_or_explains(document: dict[str, Any]) -> None:
    text = "\n".join(f"{quoted(key)} = {toml(value)}" for key, value in document.items())
    assert tomli.loads(text).keys() == document.keys()
    assert_loads_or_explains(text)


@given(st.sampled_from(sorted(TABLES)), st.data())
def test_any_one_table_beside_an_upstream_loads_or_explains(name: str, data: st.DataObject) -> None:
    """With nothing else to complain about, tables load often enough."""
    table = toml(data.draw(tables(TABLES[name])))
    assert_loads_or_explains(f"{quoted(name)} = {table}\n[[upstreams]]\nhost='a'\nport=1")


@given(tables(UpstreamSettings))
def test_any_one_upstream_loads_or_explains(table: dict[str, Any]) -> None:
    assert_loads_or_explains(f"upstreams = [{toml(table)}]")


@given(st.dictionaries(names, pools, max_size=3), st.lists(routes, max_size=3))
def test_any_pools_and_routes_load_or_explain(
    pools: dict[str, Any], routes: list[dict[str, Any]]
) -> None:
    assert_loads_or_explains(f"pools = {toml(pools)}\nroutes = {toml(routes)}")


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_loads_or_explains(text: str) -> None:
    assert_loads_or_explains(text)


@given(st.sampled_from([REFERENCE, WHOLE_REFERENCE]), st.data())
def test_a_damaged_reference_loads_or_explains(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 40, len(text))))
    assert_loads_or_explains(text[:start] + data.draw(st.text(max_size=5)) + text[end:])


VARIABLES = ["UPSTREAM_HOSTS", "PROXY_LISTEN_HOST", "PROXY_LISTEN_PORT"]
VARIABLES += ["METRICS_LISTEN_HOST", "METRICS_LISTEN_PORT", "LOG_LEVEL"]


@given(st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from([*WORDS, "80"]) | st.text()))
def test_any_environment_loads_or_explains(environ: dict[str, str]) -> None:
    lines = []
    try:
        from_environment(environ)
    except ConfigError as exc:
        lines = str(exc).splitlines()
    assert all(re.match("environment: [A-Z_]+", line) for line in lines)


PIECES = ["redis", "s", "://", ":", "@", "/", "?", "&", "=", "#", "%", "[", "]", "::1", "a", "b.c"]
PIECES += ["6379", "0", "99999", "p%40w", "ssl_cert_reqs=none", "ssl_check_hostname=true", "db=1"]


@settings(deadline=None)  # certificates are loaded from disk
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join))
def test_a_url_that_is_accepted_is_one_that_the_client_library_takes(rest: str) -> None:
    """Else it would be refused too late, when what was checked is put in force."""
    pytest.importorskip("coredis")
    for scheme in ("redis://", "rediss://"):
        if is_redis_url(scheme + rest):
            connection_maker(scheme + rest)
