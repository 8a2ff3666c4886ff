"""Which route takes a request: pure matching, as fast with a thousand routes as with two.

A route has the beginning of a path, in whole segments: ``/v1`` is for ``/v1`` and all that begins
with ``/v1/``, and ``/v1/`` for the latter alone. So the beginnings of a path that can be a route's
are few, at most two for each of its slashes, and each is looked up in a dict. No more of them are
tried than the deepest route has segments, however many slashes a client sends.

Paths are compared as they were sent: ``/v1``, ``//v1``, ``/%761`` and ``/x/../v1`` are four paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Route(Generic[T]):
    """The beginning of the paths that go to a target."""

    __slots__ = ("path", "target")

    def __init__(self, path: str, target: T) -> None:
        self.path = path
        self.target = target

    def __repr__(self) -> str:
        return f"<Route {self.path} {self.target!r}>"


class RouteTable(Generic[T]):
    """Finds the route with the longest path that fits. Raises ValueError if two are the same."""

    def __init__(self, routes: Iterable[Route[T]]) -> None:
        #: By the path, but for "/", which is what remains.
        self._routes: dict[bytes, Route[T]] = {}
        self._rest: Route[T] | None = None
        for route in routes:
            path = route.path.encode()
            if path in self._routes or (path == b"/" and self._rest is not None):
                raise ValueError(f"there are two routes of {route.path}")
            if path == b"/":
                self._rest = route
            else:
                self._routes[path] = route
        self._depth = max((path.count(b"/") for path in self._routes), default=0)

    def __repr__(self) -> str:
        routes = [*self._routes.values()] + ([self._rest] if self._rest else [])
        return f"<RouteTable {routes}>"

    def find(self, path: bytes) -> Route[T] | None:
        """The route of a path, which is without a query; None if there is none.

        What is no path, the ``*`` of OPTIONS, goes with "/".
        """
        routes, found = self._routes, self._rest
        slash = path.find(b"/", 1)
        for _ in range(self._depth):
            if slash < 0:
                return routes.get(path, found)
            found = routes.get(path[: slash + 1]) or routes.get(path[:slash]) or found
            slash = path.find(b"/", slash + 1)
        return found
