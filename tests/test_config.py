"""Configuration: what loads, what is refused, and that every refusal names file, key and reason."""

from __future__ import annotations

import math
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli

from trio_proxy.addresses import TcpAddress, UnixAddress
from trio_proxy.config import (
    ConfigError,
    load_file,
    parse,
)
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

CONF = Path(__file__).parent.parent / "conf"
UPSTREAM = "[[upstreams]]\nhost = '127.0.0.1'\nport = 9001\n"
TABLES: dict[str, Any] = {
    "": Settings,
    "upstreams": UpstreamSettings,
    "timeouts": Timeouts,
    "limits": Limits,
    "balance": Balance,
    "headers": HeaderSettings,
    "logging": LoggingSettings,
}


def load(text: str) -> Settings:
    """Settings of a document that has one upstream besides."""
    return parse(f"{text}\n{UPSTREAM}", source="x.toml")


def refusal(text: str) -> str:
    """All the problems of such a document, one a line, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).replace("x.toml: ", "")


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


def test_an_upstream_may_be_a_unix_socket() -> None:
    settings = parse("[[upstreams]]\nunix = '/run/app.sock'\nmax_conns = 3", source="x.toml")
    assert settings.upstreams[0].address == UnixAddress("/run/app.sock")
    assert settings.upstreams[0].max_conns == 3


def test_trusted_proxies_are_networks_addresses_or_unix() -> None:
    settings = load("headers.trusted_proxies = ['10.0.0.0/8', '192.0.2.1', 'fd00::/8', 'unix']")
    networks = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.1/32", "fd00::/8")))
    assert settings.headers.trusted_proxies == (*networks, "unix")


def test_timeouts_are_known_by_short_names_in_seconds_and_0_is_infinity() -> None:
    seconds = load("timeouts = {connect_ms = 1500, idle_ms = 0}").timeouts.seconds
    assert seconds["connect"] == 1.5
    assert seconds["idle"] == math.inf
    short_names = {each.name.removesuffix("_ms") for each in attrs.fields(Timeouts)}
    assert set(seconds) == short_names
    assert Limits(queue_ms=250).queue_seconds == 0.25
    assert Limits(queue_ms=0).queue_seconds == math.inf


# What is refused, and how it is said


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
        ("timeouts = 5", "timeouts: is 5 (expected a table)"),
        (
            "timeouts.read_ms = -1",
            "timeouts.read_ms: is -1 (expected an integer from 0 to 86400000)",
        ),
        (
            "limits.max_conns_per_upstream = 0",
            "limits.max_conns_per_upstream: is 0 (expected an integer from 1 to 1000000)",
        ),
        (
            "limits = {max_head_bytes = 4096, max_target_bytes = 4097}",
            "limits.max_target_bytes: is 4097, but the whole head may have only 4096 bytes"
            " (expected at most max_head_bytes, 4096)",
        ),
        (
            "headers.trusted_proxies = ['10.0.0.1/8']",
            'headers.trusted_proxies[0]: is "10.0.0.1/8", which is an address within a network'
            " (expected 10.0.0.0/8, or the address without a prefix length)",
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
        ("logging.access = 1", "logging.access: is 1 (expected true or false)"),
        ("logging.format = 'xml'", 'logging.format: is "xml" (expected "text" or "json")'),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize(
    "value", ["true", "1.0", "'1'", "nan", "[1]", "2020-01-01", f"0x{2**80:x}"]
)
def test_only_an_integer_of_this_size_is_an_integer(value: str) -> None:
    assert refusal(f"limits.max_queue = {value}").startswith("limits.max_queue: is ")


@pytest.mark.parametrize(
    ("upstream", "problem"),
    [
        ("", "upstreams[1]: has no address (expected host and port, or unix)"),
        ("host = 'a'", "upstreams[1].port: is missing (expected an integer from 1 to 65535)"),
        ("port = 1", "upstreams[1].host: is missing (expected a host name or an IP address)"),
        ("host = 'a'\nport = 0", "upstreams[1].port: is 0 (expected an integer from 1 to 65535)"),
        (
            "host = 'a:80'\nport = 80",
            'upstreams[1].host: is "a:80"'
            " (expected a host name or an IP address, without brackets or port)",
        ),
        (
            "unix = '/a'\nport = 1",
            "upstreams[1].unix: is given beside port (expected either host and port, or unix)",
        ),
        (
            "unix = 'unix:/a'",
            'upstreams[1].unix: is "unix:/a" (expected the path of a unix socket)',
        ),
        (
            "host = '127.0.0.1'\nport = 9001",
            "upstreams[1]: 127.0.0.1:9001 is there already, at index 0"
            " (expected each address once)",
        ),
    ],
)
def test_an_upstream_has_exactly_one_address(upstream: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"{UPSTREAM}[[upstreams]]\n{upstream}", source="x.toml")
    assert str(caught.value) == f"x.toml: {problem}"


@pytest.mark.parametrize("host", ["999.1.1.1", "127.1", "0x7f.1", "[::1]", "a b", "-a", "a..b", ""])
def test_what_only_resembles_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: is .*expected a host name or an IP address"):
        UpstreamSettings(host=host, port=80)


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
            "balance.drain_ms = 1",
            'balance.drain_ms: is not a known key (did you mean "drain_ms" in [timeouts]?)',
        ),
        ('balance."x\\ny" = 1', 'balance."x\\ny": is not a known key (expected one of policy)'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text: str, problem: str) -> None:
    assert refusal(text) == problem


NOT_YET = [
    (f"[[{name}]]" if name == "upstreams" else f"[{name}]" if name else "", key)
    for name, table in TABLES.items()
    for key in NOT_SUPPORTED.get(table, ())
]


@pytest.mark.parametrize(("header", "key"), NOT_YET)
def test_a_planned_key_is_refused_and_not_ignored(header: str, key: str) -> None:
    text = f"{UPSTREAM}{header}\n{key} = 1" if header else f"{key} = {{}}\n{UPSTREAM}"
    with pytest.raises(ConfigError, match=rf"\b{key}: is not supported by this version"):
        parse(text, source="x.toml")


@pytest.mark.parametrize("policy", ["weighted", "least_conn", "random_two", "ip_hash", "hash"])
def test_a_planned_policy_is_refused(policy: str) -> None:
    problem = f'balance.policy: "{policy}" is not supported by this version'
    assert refusal(f"balance.policy = '{policy}'") == f'{problem} (expected "round_robin")'


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
        health = {}
        [[upstreams]]
        host = "a"
        port = 0
        weight = 2
        [[upstreams]]
        host = "b"
        port = 1
        [[upstreams]]
        host = "b"
        port = 1
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
        "headers.trusted_proxies[1]",
        "health",
        "limits.max_queue",
        "limits.max_target_bytes",
        "listen[1]",
        "listen[2]",
        "metrics_listen",
        "pidfile",
        "timeouts.conect_ms",
        "timeouts.read_ms",
        "timeouts.write_ms",
        "upstreams[0].port",
        "upstreams[0].weight",
        "upstreams[2]",
    ]


# Classes constructed directly


UPSTREAMS = (UpstreamSettings(host="a", port=1),)


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (Timeouts, {"read_ms": True}, "read_ms: is true"),
        (Timeouts, {"read_ms": 1.0}, "read_ms: is 1.0"),
        (Timeouts, {"read_ms": "1"}, 'read_ms: is "1"'),
        (Timeouts, {"read_ms": 86_400_001}, "read_ms: is 86400001"),
        (Limits, {"max_head_bytes": 1024}, "max_target_bytes: is 8192, but"),
        (Balance, {"policy": "hash"}, 'policy: "hash" is not supported'),
        (HeaderSettings, {"forwarded": 1}, "forwarded: is 1 (expected true or false)"),
        (HeaderSettings, {"trusted_proxies": ("::/0",)}, 'trusted_proxies[0]: is "::/0"'),
        (LoggingSettings, {"level": "INFO"}, 'level: is "INFO"'),
        (UpstreamSettings, {}, "has no address"),
        (Settings, {"upstreams": ()}, "upstreams: is empty"),
        (Settings, {"upstreams": []}, "upstreams: is an array (expected a tuple)"),
        (Settings, {"upstreams": ("a:1",)}, 'upstreams[0]: is "a:1" (expected UpstreamSettings)'),
        (Settings, {"upstreams": UPSTREAMS * 2}, "upstreams[1]: a:1 is there already"),
        (Settings, {"listen": ("a:1",)}, 'listen[0]: is "a:1" (expected TcpAddress or Unix'),
        (Settings, {"listen": (TcpAddress("a", True),)}, "listen[0]: is"),
        (Settings, {"listen": (TcpAddress("a", -1),)}, "listen[0]: is"),
        (Settings, {"metrics_listen": UnixAddress("")}, "metrics_listen: is"),
        (Settings, {"timeouts": {}}, "timeouts: is a table (expected Timeouts)"),
    ],
)
def test_a_class_refuses_what_a_file_may_not_say(
    table: Any, values: dict[str, Any], message: str
) -> None:
    defaults = {"upstreams": UPSTREAMS} if table is Settings else {}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        table(**{**defaults, **values})


# The files that are shipped


def test_the_shipped_config_has_two_upstreams_and_metrics() -> None:
    settings = load_file(CONF / "proxy.toml")
    assert [str(each.address) for each in settings.upstreams] == [
        "127.0.0.1:9001",
        "127.0.0.1:9002",
    ]
    assert settings.listen == (TcpAddress("127.0.0.1", 8080),)
    assert settings.metrics_listen == TcpAddress("127.0.0.1", 8081)


def test_the_reference_states_every_key_and_every_default() -> None:
    text = (CONF / "reference.toml").read_text()
    assert load_file(CONF / "reference.toml") == load("")
    live = tomli.loads(text)
    optional = {"metrics_listen", "pid_file", "unix", "max_conns"}
    for name, table in TABLES.items():
        section = live[name] if name else live
        written = set(section[0] if isinstance(section, list) else section)
        assert written == set(attrs.fields_dict(table)) - optional
    assert all(re.search(rf"^# {key} = ", text, re.MULTILINE) for key in optional)


def test_the_commented_lines_of_the_reference_are_valid_too() -> None:
    text = (CONF / "reference.toml").read_text()
    text = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    settings = parse(re.sub(r"(?m)^unix = .*", "", text), source="reference.toml")
    assert settings.pid_file == "proxy.pid"
    assert settings.upstreams[0].max_conns == Limits().max_conns_per_upstream
