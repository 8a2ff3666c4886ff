"""Whatever a configuration says, it loads or it is explained: `ConfigError` and nothing else."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import attrs
import tomli
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.config import ConfigError, from_environment, parse
from trio_proxy.config_problems import NOT_SUPPORTED
from trio_proxy.settings import (
    Balance,
    HeaderSettings,
    Limits,
    LoggingSettings,
    Settings,
    Timeouts,
    UpstreamSettings,
)

REFERENCE = Path(__file__).parent.parent / "conf" / "reference.toml"
TABLES: dict[str, Any] = {
    "": Settings,
    "upstreams": UpstreamSettings,
    "timeouts": Timeouts,
    "limits": Limits,
    "balance": Balance,
    "headers": HeaderSettings,
    "logging": LoggingSettings,
}

KEYS = [key for table in TABLES.values() for key in attrs.fields_dict(table)]
KEYS += [key for keys in NOT_SUPPORTED.values() for key in sorted(keys)]
WORDS = ["127.0.0.1:80", "unix:/a", "unix", "10.0.0.1/8", "round_robin", "hash", "info", "Host"]
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
documents = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.lists(st.sampled_from(WORDS), max_size=3) | values,
        "upstreams": st.lists(st.dictionaries(keys, values, max_size=3), max_size=3),
        **{name: st.dictionaries(keys, values, max_size=4) for name in list(TABLES)[2:]},
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
        parse(text, source="x.toml")
    except ConfigError as exc:
        error = exc
    if error is not None:
        lines = str(error).splitlines()
        assert len(lines) == len(error.problems) == len(set(lines)) > 0
        assert all(re.fullmatch(r"x\.toml: (.+: )?.+ \(.+\)", line) for line in lines)


@given(documents)
def test_a_document_of_any_keys_and_values_loads_or_explains(document: dict[str, Any]) -> None:
    text = "\n".join(f"{quoted(key)} = {toml(value)}" for key, value in document.items())
    assert tomli.loads(text).keys() == document.keys()
    assert_loads_or_explains(text)


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_loads_or_explains(text: str) -> None:
    assert_loads_or_explains(text)


@given(st.data())
def test_a_damaged_reference_loads_or_explains(data: st.DataObject) -> None:
    text = REFERENCE.read_text()
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
