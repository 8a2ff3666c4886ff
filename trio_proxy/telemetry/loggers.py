"""The stdlib loggers of the proxy, set up to write through a `LogWriter`."""

from __future__ import annotations

import logging

from trio_proxy.telemetry.lines import freeze
from trio_proxy.telemetry.logwriter import LogWriter

ROOT_LOGGER = "trio_proxy"


class WriterHandler(logging.Handler):
    """Hands the records of stdlib loggers to a `LogWriter`, from whatever thread they come.

    ``prefix`` is put before each message.
    """

    def __init__(self, writer: LogWriter, prefix: str = "") -> None:
        super().__init__()
        self.writer = writer
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        try:
            frozen = freeze(record)
            frozen.msg = self._prefix + frozen.msg
        except Exception:  # noqa: BLE001 - logging's custom: a bad log call is shown, not raised
            self.handleError(record)
        else:
            self.writer.put_soon(frozen)


def configure(
    writer: LogWriter, level: str = "info", format: str = "text", prefix: str = ""
) -> None:
    """Send all of ``trio_proxy.*`` through the writer: for a process that the proxy owns.

    ``prefix`` says whose messages they are; access lines have none. Raises ValueError for an
    unknown level or format. Undone by `unconfigure`.
    """
    writer.set_format(format)
    set_level(level)
    unconfigure(keep_level=True)
    logger = logging.getLogger(ROOT_LOGGER)
    logger.addHandler(WriterHandler(writer, prefix))
    logger.propagate = False


def unconfigure(*, keep_level: bool = False) -> None:
    """Write what is still queued and leave the loggers as an application finds them.

    Call it after the event loop has ended: the write blocks (see `LogWriter.drain`).
    """
    logger = logging.getLogger(ROOT_LOGGER)
    for handler in [h for h in logger.handlers if isinstance(h, WriterHandler)]:
        logger.removeHandler(handler)
        handler.close()
        handler.writer.drain()
    logger.propagate = True
    if not keep_level:
        logger.setLevel(logging.NOTSET)


def set_level(level: str) -> None:
    """Show records from this level on (``debug`` … ``critical``). Raises ValueError if unknown.

    Access lines do not depend on it: they have a switch of their own.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"expected a log level such as info or debug, got {level!r}")
    logging.getLogger(ROOT_LOGGER).setLevel(number)
