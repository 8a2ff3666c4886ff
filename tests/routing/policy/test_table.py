"""Which route takes a path: the longest beginning in whole segments, found without a scan."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.routing.table import Route, RouteTable


def found(routes: list[str], path: str) -> str | None:
    """The path of the route that takes it."""
    route = RouteTable([Route(each, None) for each in routes]).find(path.encode())
    return None if route is None else route.path


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/x", "/v1"),
        ("/v1x", "/"),
        ("/v", "/"),
        ("/", "/"),
        ("//v1", "/"),
        ("/v1//x", "/v1"),
        ("/%761", "/"),
        ("/V1", "/"),
        ("/x/../v1", "/"),
        ("/v1/../x", "/v1"),
        ("*", "/"),
    ],
)
def test_a_route_takes_whole_segments_as_they_were_sent(path: str, route: str) -> None:
    assert found(["/", "/v1"], path) == route


@pytest.mark.parametrize(
    ("path", "route"), [("/v1", None), ("/v1/", "/v1/"), ("/v1/x", "/v1/"), ("/v1x", None)]
)
def test_with_a_slash_at_its_end_a_route_takes_only_what_is_below(
    path: str, route: str | None
) -> None:
    assert found(["/v1/"], path) == route


def test_both_spellings_of_a_prefix_are_two_routes() -> None:
    routes = ["/v1", "/v1/"]
    assert [found(routes, path) for path in ("/v1", "/v1/", "/v1/x")] == ["/v1", "/v1/", "/v1/"]


def test_the_longest_path_wins_whatever_the_order() -> None:
    routes = ["/", "/a", "/a/b", "/a/b/c"]
    for order in (routes, routes[::-1]):
        assert found(order, "/a/b/c/d") == "/a/b/c"
        assert found(order, "/a/b/x") == "/a/b"
        assert found(order, "/a/x/c") == "/a"


def test_without_a_route_of_everything_the_rest_has_none() -> None:
    assert found(["/v1"], "/") is None
    assert found(["/v1"], "*") is None
    assert found([], "/") is None


@pytest.mark.parametrize("path", ["/", "/v1"])
def test_two_routes_of_one_path_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="two routes of /"):
        RouteTable([Route(path, 1), Route(path, 2)])


def reference(routes: list[str], path: str) -> str | None:
    """What is meant, the slow and obvious way."""

    def fits(route: str) -> bool:
        if route == "/":
            return True
        if route.endswith("/"):
            return path.startswith(route)
        return path == route or path.startswith(route + "/")

    return max(filter(fits, routes), key=len, default=None)


segments = st.lists(st.sampled_from(["", "a", "b", "ab", "..", "%61"]), max_size=5)
paths = segments.map(lambda each: "/" + "/".join(each))


@given(st.lists(paths, unique=True, max_size=12), paths | st.just("*"))
def test_any_table_finds_what_the_obvious_way_finds(routes: list[str], path: str) -> None:
    assert found(routes, path) == reference(routes, path)


def calls(table: RouteTable[None], path: bytes) -> int:
    """How many C functions one look-up calls."""
    count = 0

    def note(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event == "c_call"

    sys.setprofile(note)
    try:
        table.find(path)
    finally:
        sys.setprofile(None)
    return count


def test_a_look_up_does_no_more_with_a_thousand_routes_than_with_two() -> None:
    few, many = (
        RouteTable([Route(f"/service-{number}/v1", None) for number in range(size)])
        for size in (2, 1000)
    )
    assert calls(few, b"/service-1/v1/x") == calls(many, b"/service-1/v1/x")


def test_a_path_of_nothing_but_slashes_costs_no_more_than_the_deepest_route() -> None:
    table = RouteTable([Route("/a/b", None)])
    assert calls(table, b"/" * 8000) == calls(table, b"/x/y/z")
