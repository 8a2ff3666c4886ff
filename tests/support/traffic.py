"""Clients that go on asking while a test does something to the proxy."""

from __future__ import annotations

import threading
from collections.abc import Callable

from support.processes import wait_until


class Traffic:
    """A loop in a thread that asks again and again, and counts what goes wrong."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.asked = 0
        self.failures: list[str] = []
        self._ask = ask
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except (OSError, EOFError, AssertionError) as exc:
                self.failures.append(repr(exc))
            self.asked += 1

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int = 5) -> None:
        """Until so many more have been asked."""
        enough = self.asked + count
        wait_until(lambda: self.asked >= enough, "traffic goes on")
