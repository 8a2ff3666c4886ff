"""What the tests of the log share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.log_sinks import ListSink


@pytest.fixture
def sink() -> Iterator[ListSink]:
    """Its gate is open at the end, so that no thread is left behind it."""
    sink = ListSink()
    yield sink
    sink.gate.set()
