"""The garbage collector of a process of the proxy's own."""

from __future__ import annotations

import gc

from trio_proxy.server.garbage import THRESHOLDS, quieten


def test_what_exists_at_the_start_is_never_looked_at_again() -> None:
    before = gc.get_threshold()
    try:
        quieten()
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 10_000
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
