"""What all tests share, and what a folder gives its tests: virtual time, or real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support")

from support.world import run  # noqa: E402 - its asserts have to be rewritten first

pytest_plugins = ["support.real_fixtures"]

HERE = Path(__file__).parent

# An example may take as long as it likes, and so may the drawing of its data: neither tells
# anything about the code. What each test sets for itself comes on top.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """No jitter: checks that are due each second come at 500 ms, 1500 ms and so on."""
    monkeypatch.setattr("random.random", lambda: 0.5)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the `sim` folders, put our `run` in front of the one that pytest-trio has chosen by now.

    So every async test there runs in virtual time, whether or not it asks for a clock.
    """
    for item in items:
        if "sim" in item.path.relative_to(HERE).parts and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=run), append=False)
