"""Every async test in this directory runs in virtual time, whether or not it asks for a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "conversation",
    "world",
    "two_pools",
    "scenario",
    "departures",
    "simnet_pairs",
    "crowd",
    "pools",
    "failing",
)

from world import run  # noqa: E402 - its asserts have to be rewritten first

HERE = Path(__file__).parent


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """No jitter: checks that are due each second come at 500 ms, 1500 ms and so on."""
    monkeypatch.setattr("random.random", lambda: 0.5)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put our `run` in front of the one that pytest-trio's trio_mode has chosen by now."""
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=run), append=False)
