"""The settings of what happens when upstreams fail or clients ask too much.

That is ``[retry]``, ``[health]``, ``[breaker]`` and ``[rate_limit]``.
"""

from __future__ import annotations

import traceback

import pytest

from support.config_documents import load, refusal
from trio_proxy.settings import BreakerSettings, Health, RateLimitSettings, Retry
from trio_proxy.settings.load.toml import ConfigError
from trio_proxy.settings.messages import status_set


@pytest.fixture
def redis_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_proxy.settings.rate_limit.find_spec", lambda name: name)


# [retry] and [health]


def test_what_may_be_retried_may_be_nothing() -> None:
    assert load("retry = {attempts = 1, on = []}").retry == Retry(attempts=1, on=())


@pytest.mark.parametrize("condition", ["conect", "5xx", "CONNECT", "504 ", "", "501"])
def test_a_condition_for_a_retry_is_one_of_a_few(condition: str) -> None:
    known = '"connect", "reset", "timeout", "429", "500", "502", "503" or "504"'
    problem = f'retry.on[1]: is "{condition}" (expected {known})'
    assert refusal(f"retry.on = ['reset', '{condition}']") == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("retry = 2", "retry: is 2 (expected a table)"),
        ("retry.on = 'connect'", 'retry.on: is "connect" (expected an array, as ["connect"])'),
        ("retry.on = {}", "retry.on: is a table (expected an array)"),
        ("retry.attempt = 2", 'retry.attempt: is not a known key (did you mean "attempts"?)'),
        (
            "health.path = 'healthz'",
            'health.path: is "healthz"'
            ' (expected a path as "/healthz", with nothing but visible ASCII in it, or "")',
        ),
        ("health.expect = []", "health.expect: is empty (expected at least one status)"),
        ("health.expect = '2xx'", 'health.expect: is "2xx" (expected an array, as ["2xx"])'),
        (
            "health.expect_body = 3",
            "health.expect_body: is 3 (expected a text of at most 1024 characters)",
        ),
        (
            f"health.expect_body = '{'x' * 1025}'",
            "health.expect_body: has 1025 characters (expected a text of at most 1024 characters)",
        ),
        (
            "health.host = 'a b'",
            'health.host: is "a b"'
            ' (expected a host, with or without a port, as "app.example", or "")',
        ),
        (
            "health.interval = 5",
            'health.interval: is not a known key (did you mean "interval_ms"?)',
        ),
        ("[[health]]", "health: is an array (expected a table)"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize("path", ["/a b", "/ä", "/a#b", "http://a/", "/" + "x" * 2048, "/\\n"])
def test_the_path_of_a_check_can_stand_in_a_request_line(path: str) -> None:
    assert refusal(f'health.path = "{path}"').startswith('health.path: is "')


def test_a_check_may_ask_for_anything_that_can_be_asked_for() -> None:
    health = load("health = {path = '/a?b=%20', host = 'app.example:8080'}").health
    assert health == Health(path="/a?b=%20", host="app.example:8080")
    assert load("health.host = '[::1]:80'").health.host == "[::1]:80"


STATUSES = ["health.expect", "health.fail_statuses", "breaker.error_statuses"]


@pytest.mark.parametrize("key", STATUSES)
def test_statuses_are_numbers_in_quotes_or_whole_classes(key: str) -> None:
    table, _, name = key.partition(".")
    settings = load(f"{key} = ['200', '404', '5xx']")
    assert getattr(getattr(settings, table), name) == ("200", "404", "5xx")


@pytest.mark.parametrize("key", STATUSES)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("503", "503"),
        ("true", "true"),
        ("'5XX'", '"5XX"'),
        ("'6xx'", '"6xx"'),
        ("'1xx'", '"1xx"'),
        ("'50x'", '"50x"'),
        ("'2xx-3xx'", '"2xx-3xx"'),
        ("'200\\n'", r'"200\\n"'),
        ('"200\\n"', r'"200\n"'),
        ("''", '""'),
    ],
)
def test_what_is_no_status_is_refused(key: str, value: str, shown: str) -> None:
    expected = 'expected a status in quotes as "503", or a class of them as "5xx"'
    assert refusal(f"{key} = ['2xx', {value}]") == f"{key}[1]: is {shown} ({expected})"


def test_a_class_of_statuses_is_a_hundred_of_them() -> None:
    assert status_set(("404", "5xx")) == {404, *range(500, 600)}
    assert status_set(()) == set()


# [breaker] and [rate_limit]


def test_without_their_tables_there_is_neither_a_breaker_nor_a_rate_limit() -> None:
    assert load("").breaker is None
    assert load("").rate_limit is None


def test_an_empty_table_means_its_defaults() -> None:
    assert load("[breaker]").breaker == BreakerSettings()
    assert load("[rate_limit]").rate_limit == RateLimitSettings()
    assert load("breaker.error_percent = 10").breaker == BreakerSettings(error_percent=10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("breaker = true", "breaker: is true (expected a table, or to be left out)"),
        ("rate_limit = 100", "rate_limit: is 100 (expected a table, or to be left out)"),
        ("[[breaker]]", "breaker: is an array (expected a table, or to be left out)"),
        (
            "breaker.errors = ['5xx']",
            'breaker.errors: is not a known key (did you mean "error_statuses"?)',
        ),
        ("rate_limit.keys = 5", 'rate_limit.keys: is not a known key (did you mean "key"?)'),
        (
            "rate_limit.key = 'cookie:sid'",
            'rate_limit.key: is "cookie:sid" (expected "client_ip", "global" or "header:NAME")',
        ),
        (
            "rate_limit.key = 'path'",
            'rate_limit.key: is "path" (expected "client_ip", "global" or "header:NAME")',
        ),
    ],
)
def test_a_wrong_optional_table_is_named_too(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize("key", ["client_ip", "global", "header:X-Api-Key"])
def test_a_rate_is_that_of_a_client_of_all_or_of_a_field(key: str) -> None:
    assert load(f"rate_limit.key = '{key}'").rate_limit == RateLimitSettings(key=key)


# The store of a rate limit


@pytest.mark.parametrize(
    "url",
    [
        "redis://10.0.0.9",
        "redis://redis.example:6379/0",
        "redis://user:p%40ss%2Fw0rd@[::1]:6379/15",
        "rediss://:pass@redis.example/0?ssl_cert_reqs=none",
        "rediss://redis.example?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_check_hostname=false",
    ],
)
@pytest.mark.usefixtures("redis_is_installed")
def test_a_store_is_a_redis_url(url: str) -> None:
    settings = load(f"rate_limit.store = '{url}'")
    assert settings.rate_limit is not None
    assert settings.rate_limit.store == url


@pytest.mark.parametrize(
    "url",
    [
        "'localhost:6379'",
        "'http://:hunter2@redis.example'",
        "'redis:/:hunter2@redis.example'",
        "'redis://:hunter2@/0'",
        "'redis://:hunter2@redis.example:66666/0'",
        "'redis://:hunter2@redis.example:0/0'",
        "'redis://:hunter2@redis.example:x/0'",
        "'redis://:hunter2@redis.example/cache'",
        "'redis://:hunter2@redis.example/0?db=1'",
        "'redis://redis.example/0?password=hunter2'",
        "'rediss://:hunter2@redis.example?ssl_cert_reqs=no'",
        "'rediss://:hunter2@redis.example?ssl_cert_reqs=none&ssl_cert_reqs=none'",
        "'rediss://:hunter2@redis.example?ssl_cert_reqs=none&ssl_check_hostname=true'",
        "'rediss://:hunter2@redis.example?&'",
        "'redis://:hunter2#@redis.example/0'",
        "'redis://:hunter2/@redis.example/0'",
        "'redis://:hunter2[@redis.example/0'",
        "'redis://:hunter2 @redis.example/0'",
        "'redis://:hunter2@[::x]/0'",
        "'redis://:hunter2@redis..example/0'",
        "'redis://:hunter2é@redis.example/0'",
        '"redis://:hunter2@redis.example/0\\n"',
        "['redis://:hunter2@redis.example/0']",
        "{hunter2 = 'hunter2'}",
        "6379",
        "true",
    ],
)
@pytest.mark.usefixtures("redis_is_installed")
def test_a_wrong_store_is_refused_without_being_shown(url: str) -> None:
    """It may hold a password, and whoever mistypes a URL has one at hand."""
    with pytest.raises(ConfigError) as caught:
        load(f"rate_limit.store = {url}")
    assert str(caught.value) == (
        "x.toml: rate_limit.store: is not a Redis URL (expected"
        ' "redis://USER:PASSWORD@HOST:PORT/DB", special characters as %XX, or "")'
    )
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_store_needs_its_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_proxy.settings.rate_limit.find_spec", lambda name: None)
    assert refusal("rate_limit.store = 'redis://:hunter2@redis.example/0'") == (
        "rate_limit.store: needs the package coredis"
        ' (expected it to be installed: pip install "trio-proxy[redis]")'
    )
    assert load("rate_limit.store = ''").rate_limit == RateLimitSettings()


@pytest.mark.usefixtures("redis_is_installed")
def test_settings_do_not_show_their_store() -> None:
    settings = load("rate_limit.store = 'redis://:hunter2@redis.example/0'")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
