"""The settings of upstreams: where they are, how one is chosen, how their names are looked up."""

from __future__ import annotations

import traceback

import pytest

from support.config_documents import UPSTREAM, load, refusal
from trio_proxy.http.addresses import MAX_UNIX_PATH, TcpAddress, UnixAddress
from trio_proxy.settings import Balance, Dns, UpstreamSettings
from trio_proxy.settings.load.toml import ConfigError, parse

# Where an upstream is


def test_an_upstream_may_be_a_unix_socket() -> None:
    settings = parse("[[upstreams]]\nunix = '/run/app.sock'\nmax_conns = 3", source="x.toml")
    assert settings.upstreams[0].address == UnixAddress("/run/app.sock")
    assert settings.upstreams[0].max_conns == 3


def test_an_upstream_may_be_whatever_srv_records_name() -> None:
    text = "[[upstreams]]\nsrv = '_http._tcp.App.example.'\nweight = 2"
    upstream = parse(text, source="x.toml").upstreams[0]
    assert (upstream.srv, upstream.weight) == ("_http._tcp.App.example.", 2)
    assert upstream.place == "_http._tcp.app.example"
    assert upstream.address == TcpAddress("_http._tcp.app.example", 0)


def test_a_name_may_be_asked_for_its_addresses_and_for_its_srv_records() -> None:
    text = "[[upstreams]]\nsrv = 'app'\n[[upstreams]]\nhost = 'app'\nport = 80\n"
    assert len(parse(text, source="x.toml").upstreams) == 2


ALL_WAYS = "expected host and port, or srv, or unix"
SRV_EXPECTED = 'expected a name as "_http._tcp.app.example", without a port'
UNIX_EXPECTED = f"expected the path of a unix socket, of at most {MAX_UNIX_PATH} bytes"


@pytest.mark.parametrize(
    ("upstream", "problem"),
    [
        ("", f"upstreams[1]: has no address ({ALL_WAYS})"),
        ("weight = 2", f"upstreams[1]: has no address ({ALL_WAYS})"),
        ("host = 'a'", "upstreams[1].port: is missing (expected an integer from 1 to 65535)"),
        ("port = 1", "upstreams[1].host: is missing (expected a host name or an IP address)"),
        ("host = 'a'\nport = 0", "upstreams[1].port: is 0 (expected an integer from 1 to 65535)"),
        (
            "host = 'a:80'\nport = 80",
            'upstreams[1].host: is "a:80"'
            " (expected a host name or an IP address, without brackets or port)",
        ),
        ("unix = '/a'\nport = 1", f"upstreams[1].unix: is given beside port ({ALL_WAYS})"),
        ("unix = '/a'\nsrv = 'a'", f"upstreams[1].unix: is given beside srv ({ALL_WAYS})"),
        ("srv = 'a'\nport = 1", f"upstreams[1].srv: is given beside port ({ALL_WAYS})"),
        (
            "host = 'a'\nport = 1\nsrv = 'a'",
            f"upstreams[1].srv: is given beside host and port ({ALL_WAYS})",
        ),
        ("unix = ''", f'upstreams[1].unix: is "" ({UNIX_EXPECTED})'),
        ("unix = 5", f"upstreams[1].unix: is 5 ({UNIX_EXPECTED})"),
        ("unix = 'unix:/a'", f'upstreams[1].unix: is "unix:/a" ({UNIX_EXPECTED})'),
        ("srv = ''", f'upstreams[1].srv: is "" ({SRV_EXPECTED})'),
        ("srv = true", f"upstreams[1].srv: is true ({SRV_EXPECTED})"),
        ("srv = 'app:80'", f'upstreams[1].srv: is "app:80" ({SRV_EXPECTED})'),
        ("srv = '10.0.0.1'", f'upstreams[1].srv: is "10.0.0.1" ({SRV_EXPECTED})'),
        ("srv = '::1'", f'upstreams[1].srv: is "::1" ({SRV_EXPECTED})'),
        (
            "host = '127.0.0.1'\nport = 9001",
            "upstreams[1]: 127.0.0.1:9001 is there already, at index 0"
            " (expected each address once)",
        ),
        (
            "srv = 'a'\n[[upstreams]]\nsrv = 'A.'",
            "upstreams[2]: a is there already, at index 1 (expected each address once)",
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
    with pytest.raises(ValueError, match=r"^srv: is .*expected a name"):
        UpstreamSettings(srv=host)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host = '127.0.0.1'\nport = 80", "127.0.0.1:80 is where the proxy itself listens"),
        ("unix = '/a'", "unix:/a is where the proxy itself listens"),
    ],
)
def test_the_proxy_is_not_its_own_upstream(text: str, problem: str) -> None:
    listen = "listen = ['127.0.0.1:80', 'unix:/a']"
    with pytest.raises(ConfigError) as caught:
        parse(f"{listen}\n[[upstreams]]\n{text}", source="x.toml")
    assert str(caught.value) == f"x.toml: upstreams[0]: {problem} (expected another server)"


@pytest.mark.parametrize(
    ("key", "guess"),
    [
        ("wieght", '"weight"'),
        ("fail_timeout", '"fail_timeout_ms"'),
        ("max_connections", '"max_conns"'),
        ("slow_start", '"slow_start_ms"'),
        ("max", '"max_conns" or "max_fails"'),
        ("drain_ms", '"drain", or "drain_ms" in [timeouts]'),
        ("path", '"path" in [[routes]] or [health]'),
    ],
)
def test_an_unknown_key_of_an_upstream_is_refused_with_the_nearest(key: str, guess: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"{UPSTREAM}{key} = 1", source="x.toml")
    problem = f"upstreams[0].{key}: is not a known key (did you mean {guess}?)"
    assert str(caught.value) == f"x.toml: {problem}"


# [balance]

KEYS = '"client_ip", "path", "uri", "host", "header:NAME" or "cookie:NAME"'


@pytest.mark.parametrize(
    "policy", ["round_robin", "weighted", "least_conn", "random_two", "ip_hash", "hash"]
)
def test_every_policy_is_known(policy: str) -> None:
    assert load(f"balance.policy = '{policy}'").balance.policy == policy


@pytest.mark.parametrize(
    "key", ["client_ip", "path", "uri", "host", "header:X-User", "cookie:sid", "header:X_User"]
)
def test_a_hash_goes_by_any_of_these(key: str) -> None:
    balance = load(f"balance = {{policy = 'hash', key = '{key}'}}").balance
    assert balance == Balance(policy="hash", key=key)


@pytest.mark.parametrize(
    "key",
    [
        *("", "ip", "client_ip ", "X-User", "header", "header:", "cookie:", "Header:X"),
        *("header: X", "header:a b", "header:X\\n", "header:" + "x" * 65),
    ],
)
def test_a_key_is_a_word_or_the_name_of_a_field_or_cookie(key: str) -> None:
    problem = refusal(f'balance.key = "{key}"')
    assert problem.startswith('balance.key: is "')
    assert problem.endswith(f" (expected {KEYS})")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "policy = 'roundrobin'",
            'policy: is "roundrobin" (expected "round_robin", "weighted", "least_conn",'
            ' "random_two", "ip_hash" or "hash")',
        ),
        ("key = 5", f"key: is 5 (expected {KEYS})"),
        (
            "sticky_cookie = 'a b'",
            'sticky_cookie: is "a b"'
            ' (expected a cookie name (RFC 6265 §4.1.1) of at most 64 characters, or "")',
        ),
        (
            "sticky_cookie = true",
            "sticky_cookie: is true"
            ' (expected a cookie name (RFC 6265 §4.1.1) of at most 64 characters, or "")',
        ),
        (
            "sticky_secret = 's3cret'",
            "sticky_secret: is of no use alone (expected a sticky_cookie beside it)",
        ),
        (
            "sticky_secret = 5",
            "sticky_secret: is not a text (expected a text of at most 1024 characters)",
        ),
        (
            f"sticky_secret = '{'s3cret' * 200}'\nbalance.sticky_cookie = 'lb'",
            "sticky_secret: has 1200 characters (expected a text of at most 1024 characters)",
        ),
    ],
)
def test_a_wrong_value_of_the_balance_is_named_with_what_was_expected(
    text: str, problem: str
) -> None:
    assert refusal(f"balance.{text}") == f"balance.{problem}"


def test_a_faulty_cookie_is_no_missing_one() -> None:
    problem = refusal("balance = {sticky_cookie = 5, sticky_secret = 's3cret'}")
    assert problem.startswith("balance.sticky_cookie: is 5 (")
    assert "\n" not in problem


def test_the_secret_of_the_cookies_is_never_shown() -> None:
    settings = load("balance = {sticky_cookie = 'lb', sticky_secret = 's3cret'}")
    assert settings.balance.sticky_secret == "s3cret"
    assert "s3cret" not in repr(settings)
    for wrong in ("'s3cret'", f"'{'s3cret' * 200}'", "['s3cret']", "{s3cret = 's3cret'}"):
        with pytest.raises(ConfigError) as caught:
            load(f"balance.sticky_secret = {wrong}")
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


# [dns]


def test_name_servers_are_addresses_with_or_without_a_port() -> None:
    servers = ("10.0.0.2", "10.0.0.2:5353", "::1", "[::1]:53", "fe80::1%eth0")
    dns = load(f"dns = {{refresh_ms = 0, nameservers = {list(servers)}}}").dns
    assert dns == Dns(refresh_ms=0, nameservers=servers)


@pytest.mark.parametrize(
    "server", ["ns.example", "10.0.0.2:0", "10.0.0.2:", "[::1]", "unix:/a", "", "10.0.0.2:65536"]
)
def test_a_name_server_is_not_known_by_name(server: str) -> None:
    """To look that up would take a name server."""
    expected = 'expected an IP address, with or without a port, as "10.0.0.2:53"'
    problem = f'dns.nameservers[1]: is "{server}" ({expected})'
    assert refusal(f"dns.nameservers = ['10.0.0.1', '{server}']") == problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("'10.0.0.2'", 'is "10.0.0.2" (expected an array, as ["10.0.0.2"])'),
        ("53", "is 53 (expected an array)"),
        ("false", "is false (expected an array)"),
    ],
)
def test_name_servers_are_an_array(value: str, problem: str) -> None:
    assert refusal(f"dns.nameservers = {value}") == f"dns.nameservers: {problem}"
