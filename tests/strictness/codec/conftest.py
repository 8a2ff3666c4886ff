"""The ways in which each conversation is had."""

from __future__ import annotations

import pytest

from support.wire_conversation import WAYS


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How the bytes arrive: whole, byte by byte, or with more behind them."""
    return request.param
