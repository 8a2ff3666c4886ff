"""The programs of ``examples/``, with the configuration that each shows in its docstring."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from support.processes import ROOT
from trio_proxy.settings import MiddlewareSettings, RouteSettings, Settings
from trio_proxy.settings.load.toml import parse

FOLDER = ROOT / "examples"
NAMES = ("api_key", "rewrite_response", "ab_header")


def configuration(name: str) -> str:
    """The TOML in the docstring of an example: its indented lines up to the first command."""
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()), clean=False)
    assert docstring is not None
    shown = [line for line in docstring.splitlines() if line.startswith("    ") or not line]
    return textwrap.dedent("\n".join(shown)).partition("trio-proxy run")[0]


@contextmanager
def findable() -> Iterator[None]:
    """Have Python find the examples, as ``--app-dir examples`` does."""
    sys.path.append(str(FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))


def settings_of(name: str) -> Settings:
    """The configuration that is shown, loaded."""
    with findable():
        return parse(configuration(name), source=name)


def tables(name: str, **options: object) -> dict[str, MiddlewareSettings]:
    """The ``[middlewares]`` that is shown, with these options in place of its own."""
    ((key, shown),) = settings_of(name).middlewares.items()
    return {key: MiddlewareSettings(kind=shown.kind, options={**shown.options, **options})}


def routes_through(middlewares: dict[str, MiddlewareSettings]) -> tuple[RouteSettings]:
    """One route of everything."""
    return (RouteSettings(pool="default", middlewares=tuple(middlewares)),)
