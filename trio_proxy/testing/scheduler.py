"""The order in which trio runs tasks, decided by a seed."""

from __future__ import annotations

import random
from typing import Any

import trio

_trio_run: Any = trio._core._run


class SeededScheduler:
    """Lets a seed decide the order in which trio runs tasks that are ready at the same time.

    Trio shuffles them by a generator of its own. It has no public way to seed that, so this uses
    what its hypothesis plugin uses.
    """

    def __init__(self, seed: int) -> None:
        rng: random.Random = _trio_run._r
        self._before = rng.getstate(), _trio_run._ALLOW_DETERMINISTIC_SCHEDULING
        _trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
        rng.seed(seed)

    def restore(self) -> None:
        state, was_allowed = self._before
        _trio_run._r.setstate(state)
        _trio_run._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed
