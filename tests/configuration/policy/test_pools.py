"""Pools and routes in a configuration: what loads, what they inherit, what is refused."""

from __future__ import annotations

import re

import attrs
import pytest

from support.config_documents import load, refusal
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.settings import (
    Balance,
    BreakerSettings,
    Health,
    PoolLimits,
    PoolSettings,
    RouteSettings,
    Settings,
    UpstreamSettings,
)
from trio_proxy.settings.load.toml import ConfigError, parse

API = "[[pools.api.upstreams]]\nhost = 'api'\nport = 1\n"
WEB = "[[pools.web.upstreams]]\nhost = 'web'\nport = 1\n"
TO_API = "[[routes]]\npath = '/v1'\npool = 'api'\n"
TO_WEB = "[[routes]]\npool = 'web'\n"


def alone(text: str) -> Settings:
    """The settings of a document that has nothing besides."""
    return parse(text, source="x.toml")


def problems(text: str) -> list[str]:
    """What is wrong with such a document, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        alone(text)
    return str(caught.value).replace("x.toml: ", "").splitlines()


# What loads


def test_the_short_form_is_a_pool_named_default_and_one_route() -> None:
    settings = load("")
    assert settings.every_pool == {"default": PoolSettings(upstreams=settings.upstreams)}
    assert settings.every_route == (RouteSettings(path="/", pool="default"),)


def test_pools_and_routes_stand_for_themselves() -> None:
    settings = alone(API + WEB + TO_API + TO_WEB)
    assert list(settings.every_pool) == ["api", "web"]
    assert settings.every_pool["api"].upstreams[0].address == TcpAddress("api", 1)
    assert settings.every_route == (
        RouteSettings(path="/v1", pool="api"),
        RouteSettings(path="/", pool="web"),
    )


def test_both_forms_can_stand_in_one_file() -> None:
    settings = load(API + TO_API + "[[routes]]\npool = 'default'\n")
    assert list(settings.every_pool) == ["default", "api"]
    assert not list(settings.remarks())


def test_without_routes_the_default_pool_takes_everything() -> None:
    """The other pool is allowed, as nginx allows an upstream group that nobody uses."""
    settings = load(API)
    assert settings.every_route == (RouteSettings(path="/", pool="default"),)
    assert list(settings.remarks()) == ["pools.api: no route leads to it"]


def test_the_pool_of_the_short_form_need_not_have_a_route() -> None:
    assert list(load(API + TO_API).remarks()) == ["upstreams: no route leads to them"]


# What a pool takes from the file


def test_a_table_that_a_pool_does_not_have_is_the_files() -> None:
    pool = alone("[health]\npath = '/up'\n" + API + TO_API).every_pool["api"]
    assert attrs.asdict(pool, recurse=False) == {
        "upstreams": pool.upstreams,
        **dict.fromkeys(["limits", "balance", "retry", "health", "breaker", "dns"]),
    }


def test_a_key_that_a_pools_table_leaves_out_is_the_files() -> None:
    common = "[health]\npath = '/up'\nrise = 5\n[breaker]\nopen_ms = 7\n"
    own = "[pools.api.health]\nrise = 9\n[pools.api.breaker]\nmin_requests = 3\n"
    pool = alone(common + API + own + TO_API).every_pool["api"]
    assert pool.health == Health(path="/up", rise=9)
    assert pool.breaker == BreakerSettings(open_ms=7, min_requests=3)


def test_of_the_files_limits_a_pool_takes_those_that_it_can_have() -> None:
    text = "[limits]\nmax_queue = 3\nqueue_ms = 4\nmax_client_conns = 5\n"
    own = "[pools.api.limits]\nqueue_ms = 9\n"
    limits = alone(text + API + own + TO_API).every_pool["api"].limits
    assert limits == PoolLimits(max_queue=3, queue_ms=9)


# What is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (API, "routes: is missing (expected a [[routes]] table for each pool)"),
        (
            "[[pools.default.upstreams]]\nhost = 'a'\nport = 1\n",
            "routes: is missing (expected a [[routes]] table for each pool)",
        ),
        (TO_API, "upstreams: is missing (expected at least one [[upstreams]] table)"),
        (
            "[pools.api]\n" + TO_API,
            "pools.api.upstreams: is missing"
            " (expected at least one [[pools.NAME.upstreams]] table)",
        ),
        (
            "[pools.api]\nupstreams = []\n" + TO_API,
            "pools.api.upstreams: is empty (expected at least one upstream)",
        ),
        (
            API + TO_API.replace("'api'", "'apo'"),
            'routes[0].pool: is "apo", and there is no such pool (did you mean "api"?)',
        ),
        (
            API + WEB + TO_API.replace("'api'", "'x'"),
            'routes[0].pool: is "x", and there is no such pool (expected one of "api", "web")',
        ),
        (API + "[[routes]]", "routes[0].pool: is missing (expected the name of a pool)"),
        (
            API + TO_API + TO_API,
            'routes[1].path: "/v1" is there already, at index 0 (expected each path once)',
        ),
        (
            API.replace("api", "Api") + "[[routes]]\npool = 'api'",
            'pools.Api: is no name of a pool (expected 1 to 64 of a-z, 0-9, "_" and "-")',
        ),
        (
            '[[pools."a b".upstreams]]\nhost = "a"\nport = 1\n[[routes]]\npool = "a"',
            'pools."a b": is no name of a pool (expected 1 to 64 of a-z, 0-9, "_" and "-")',
        ),
        (API + API + TO_API, "pools.api.upstreams[1]: api:1 is there already, at index 0"),
        ("listen = 'api:1'\n" + API + TO_API, "pools.api.upstreams[0]: api:1 is where the proxy"),
        ("pools = 3", "pools: is 3 (expected a table of tables)"),
        ("routes = 3", "routes: is 3 (expected an array of tables, each below a [[header]] in"),
        ("[pools]\napi = 3", "pools.api: is 3 (expected a table)"),
    ],
)
def test_what_does_not_fit_together_is_told(text: str, problem: str) -> None:
    assert any(each.startswith(problem) for each in problems(text)), problems(text)


def test_the_default_pool_cannot_be_described_twice() -> None:
    own = "[[pools.default.upstreams]]\nhost = 'a'\nport = 1\n"
    assert refusal(own) == (
        "pools.default: is given beside [[upstreams]], which are that pool's"
        " (expected one of the two)"
    )


PREFIX = 'expected the beginning of a path, as "/v1", without "%", ";", "." and ".."'
NO_PATTERNS = "expected a prefix; this version supports neither exact paths nor patterns"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *((path, PREFIX) for path in ("", "v1", "//", "/a//b", "/%41", "/a;b", "/a b", "/ä")),
        *((path, PREFIX) for path in ("/.", "/../a", "/a/..", "/a/./b", "/a?b", "/a#b", "/a\\\\b")),
        *((path, NO_PATTERNS) for path in ("= /exact", "~ ^/u/[0-9]+$")),
    ],
)
def test_what_is_no_prefix_of_paths_is_refused(path: str, expected: str) -> None:
    (problem,) = problems(f'{API}[[routes]]\npool = "api"\npath = "{path}"')
    assert problem.startswith("routes[0].path: is ")
    assert problem.endswith(f"({expected})")


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/.well-known/x.y", "/...", "/a:b@c", "/~me"])
def test_prefixes_of_paths_are_taken_as_they_are(path: str) -> None:
    assert alone(f"{API}[[routes]]\npool = 'api'\npath = '{path}'").routes[0].path == path


@pytest.mark.parametrize(
    "key",
    ["host = 'a'", "methods = ['GET']", "redirect = {}", "strip_prefix = '/v1'", "limits = {}"],
)
def test_planned_keys_of_a_route_are_refused_and_not_ignored(key: str) -> None:
    (problem,) = problems(API + TO_API + key)
    name = key.partition(" ")[0]
    expected = "is not supported by this version (expected to be left out)"
    assert problem == f"routes[0].{name}: {expected}"


def test_planned_keys_of_a_pool_are_refused_and_not_ignored() -> None:
    (problem,) = problems(API + TO_API + "[pools.api.tls]\nca = 'x'")
    assert problem == "pools.api.tls: is not supported by this version (expected to be left out)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[pools.api.helth]", 'pools.api.helth: is not a known key (did you mean "health"?)'),
        (
            "[pools.api.health]\nintervall_ms = 1",
            'pools.api.health.intervall_ms: is not a known key (did you mean "interval_ms"?)',
        ),
        (
            "[pools.api.limits]\nmax_client_conns = 1",
            "pools.api.limits.max_client_conns: is not a known key"
            ' (did you mean "max_client_conns" in [limits]?)',
        ),
        (
            "[pools.api.timeouts]",
            "pools.api.timeouts: is not a known key (did you mean [timeouts]?)",
        ),
        ("[balance]\npool = 'api'", 'balance.pool: is not a known key (did you mean "pool" in [['),
        ("[retry]\npools = 1", "retry.pools: is not a known key (did you mean [pools.NAME]?)"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(text: str, problem: str) -> None:
    (found,) = problems(API + TO_API + text)
    assert found.startswith(problem)


def test_two_pools_cannot_have_the_same_sticky_cookie() -> None:
    """Each would write over the other's whenever a client goes to both."""
    text = "[balance]\nsticky_cookie = 'at'\n" + API + WEB + TO_API + TO_WEB
    assert problems(text) == [
        'pools.web.balance.sticky_cookie: is "at", which is that of pool api already'
        " (expected a cookie of its own for each pool)"
    ]
    settings = alone(text + "[pools.web.balance]\nsticky_cookie = 'on'")
    assert settings.every_pool["web"].balance == Balance(sticky_cookie="on")


def test_every_problem_of_every_pool_and_route_is_told_in_one_go() -> None:
    """What a pool takes from a faulty table of the file is told of the file alone."""
    text = """
        listen = "web:1"
        [health]
        interval_ms = 1
        expect = ["2xx", "9xx"]
        [[pools.api.upstreams]]
        host = "api"
        port = 0
        wieght = 1
        [pools.api.health]
        interval_ms = 2
        rise = 0
        [[pools.web.upstreams]]
        host = "web"
        port = 1
        [pools.web.health]
        path = "up"
        [[routes]]
        pool = "ap"
        [[routes]]
        path = "v1"
        [[routes]]
        pool = "web"
        hosts = "x"
    """
    with pytest.raises(ConfigError) as caught:
        alone(text)
    assert sorted(problem.path for problem in caught.value.problems) == [
        "health.expect[1]",
        "health.interval_ms",
        "pools.api.health.interval_ms",
        "pools.api.health.rise",
        "pools.api.upstreams[0].port",
        "pools.api.upstreams[0].wieght",
        "pools.web.health.path",
        "routes[0].pool",
        "routes[1].path",
        "routes[1].pool",
        "routes[2].hosts",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pools": []}, "pools: is an array (expected a dict)"),
        ({"pools": {"api": 1}}, "pools.api: is 1 (expected PoolSettings)"),
        ({"pools": {"A": 1}}, "pools.A: is no name of a pool"),
        ({"pools": {1: 1}}, "pools.1: is no name of a pool"),
        ({"routes": ({},)}, "routes[0]: is a table (expected RouteSettings)"),
        ({"routes": (RouteSettings(pool="x"),)}, 'routes[0].pool: is "x", and there is no such'),
    ],
)
def test_the_class_refuses_what_a_file_may_not_say(values: dict[str, object], message: str) -> None:
    upstreams = (UpstreamSettings(host="a", port=1),)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Settings(upstreams=upstreams, **values)  # type: ignore[arg-type]
