"""Handlers and middlewares that are not the proxy's own: where they come from, and their lives.

A program gives instances to `trio_proxy.open_proxy`, and those go on for as long as the proxy does.
The configuration names classes (``kind = "module:Class"``); an instance of such a one lives for as
long as its settings stay what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs
from cattrs import BaseValidationError

from trio_proxy.exchange.chain import chain
from trio_proxy.exchange.contract import Handler, Middleware
from trio_proxy.settings import MiddlewareSettings, RouteSettings, SettingError, Settings
from trio_proxy.settings.load.plugins import make_middleware
from trio_proxy.settings.load.problems import ConfigError, Problem, problems_in

log = logging.getLogger("trio_proxy.server")

#: A sequence stands in front of everything; of a mapping routes choose by name.
Given: TypeAlias = Sequence[Middleware] | Mapping[str, Middleware]

#: What problems have in place of the name of a file.
_SOURCE = "settings"


class Plugins:
    """The handlers and middlewares of a proxy. A part of a reload.

    Raises TypeError for what is neither.
    """

    def __init__(self, handlers: Mapping[str, Handler] | None = None, given: Given = ()) -> None:
        self._handlers = dict(handlers or {})
        self._named = dict(given) if isinstance(given, Mapping) else {}
        self._everywhere = [] if isinstance(given, Mapping) else [*given]
        for each in (*self._handlers.values(), *self._named.values(), *self._everywhere):
            _check_instance(each)
        self._made: dict[str, tuple[MiddlewareSettings, Middleware]] = {}
        self._prepared: dict[str, tuple[MiddlewareSettings, Middleware]] = {}
        self._unused: list[str] = []

    def __repr__(self) -> str:
        return f"<Plugins {[*self._handlers]} {[*self._made, *self._named, *self._everywhere]}>"

    # Reload

    async def prepare(self, settings: Settings) -> None:
        """Make what is new, or has other settings than before. Raises ConfigError."""
        problems = [
            Problem(_SOURCE, each.key, each.wrong, each.expected)
            for each in settings.unknown_names(handlers=self._handlers, middlewares=self._named)
        ]
        self._prepared = {}
        for name, table in settings.middlewares.items():
            if name in self._named:
                wrong = "is given to open_proxy, too"
                problems.append(
                    Problem(_SOURCE, f"middlewares.{name}", wrong, "expected one of the two")
                )
            kept = self._made.get(name)
            if kept is not None and kept[0] == table:
                self._prepared[name] = kept
                continue
            try:
                self._prepared[name] = table, make_middleware(table)
            except (SettingError, BaseValidationError) as exc:
                problems += _problems_of(name, exc)
        if problems:
            self.abandon()
            raise ConfigError(problems)
        self._unused = [*self._idle_names(settings.every_route)]

    def _idle_names(self, routes: Sequence[RouteSettings]) -> Iterator[str]:
        """What was given for nothing, in words."""
        for name in self._handlers.keys() - {route.handler for route in routes}:
            yield f"handlers: no route leads to {name}"
        for name in self._named.keys() - {each for route in routes for each in route.middlewares}:
            yield f"middlewares: no route leads through {name}"

    def commit(self) -> None:
        """Put what was prepared in force."""
        self._made, self._prepared = self._prepared, {}
        for remark in self._unused:
            log.warning("%s", remark)

    def abandon(self) -> None:
        """Forget what was prepared."""
        self._prepared = {}

    # Routes

    def handler(self, name: str) -> Handler:
        """The handler that was given by that name."""
        return self._handlers[name]

    def in_front_of(self, handler: Handler, route: RouteSettings) -> Handler:
        """The handler of a route, behind what stands in front of everything and of that route."""
        named = [self._named.get(name) or self._made[name][1] for name in route.middlewares]
        return chain([*self._everywhere, *named], handler)


def _check_instance(each: object) -> None:
    if isinstance(each, type) or not callable(getattr(each, "handle", None)):
        raise TypeError(f"expected an instance with an async method handle, got {each!r}")


def _problems_of(name: str, error: SettingError | BaseValidationError) -> Iterator[Problem]:
    path = f"middlewares.{name}"
    if isinstance(error, SettingError):
        yield Problem(_SOURCE, f"{path}.{error.key}", error.wrong, error.expected)
    else:
        for each in problems_in(error, _SOURCE):
            yield attrs.evolve(each, path=f"{path}.{each.path}".removesuffix("."))
