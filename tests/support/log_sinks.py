"""What the tests of the log writer put into it, and a sink that a test has in its hands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from support.exchanges import exchange_with
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.outputs import Record


def message(text: str) -> logging.LogRecord:
    return logging.LogRecord("trio_proxy.test", logging.INFO, __file__, 1, text, None, None)


def exchange(target: str = "/") -> Exchange:
    return exchange_with(method="GET", target=target, version="1.1", status=200)


class ListSink:
    """Keeps messages; while ``gate`` is shut every write blocks, as a full pipe does."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.lose = False

    def emit(self, records: Sequence[Record], style: LogFormat) -> int:
        self.entered.set()
        assert self.gate.wait(10), "the test forgot to open the gate"
        if self.lose:
            return len(records)
        self.messages += [r.target if isinstance(r, Exchange) else r.getMessage() for r in records]
        return 0
