"""What can be imported from the top of the package, and that all of it is explained."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys

import pytest

import trio_proxy
from support.documents import Document
from trio_proxy.server.run import DRIVEN_BY

#: Aliases of types, which have no docstring; a comment with ``#:`` stands in front of them.
ALIASES = {"Address": "trio_proxy.http.addresses", "Next": "trio_proxy.exchange.contract"}


@pytest.mark.skipif("modules compiled" in DRIVEN_BY, reason="compiled classes have no docstrings")
@pytest.mark.parametrize("name", [n for n in trio_proxy.__all__ if n != "__version__"])
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(trio_proxy, name)
    if name in ALIASES:
        source = inspect.getsource(importlib.import_module(ALIASES[name]))
        assert re.search(rf"(?m)^#: .*\n{name}: TypeAlias = ", source)
    else:
        assert vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__


def test_the_names_are_in_order_and_nothing_else_is_there() -> None:
    assert sorted(trio_proxy.__all__) == [*trio_proxy.__all__]
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = trio_proxy.Nonsense
    assert set(trio_proxy.__all__) <= set(dir(trio_proxy))


def test_the_version_is_that_of_the_package() -> None:
    assert trio_proxy.__version__ == importlib.metadata.version("trio-proxy")


def test_nothing_is_loaded_before_it_is_used() -> None:
    """The command line sets its signals right first."""
    program = "import sys, trio_proxy; print('trio' in sys.modules, 'attrs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False False\n"


def test_the_pages_list_of_names_is_that_of_the_package() -> None:
    """Each of those that are for handlers and middlewares, settings aside."""
    section = Document("README.md").section("Extending it")
    named = re.findall(r"`(\w+)`", section.partition("the package exports")[2])
    settings = importlib.import_module("trio_proxy.settings").__all__
    assert set(named) == set(trio_proxy.__all__) - {*settings} | {"Settings"}
