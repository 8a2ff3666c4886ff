"""What every test of the simulated network shares; see `world`."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("world")
