"""The entry point: makes the process fit to start, then hands over to `trio_proxy.cli.commands`.

Loading the rest takes a few hundred milliseconds. Until the event loop listens to signals, an
interrupt must end the process without a traceback, and a SIGHUP (a supervisor that reloads right
after the start) must not end it.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _open_standard_streams()
    try:
        from trio_proxy.cli.commands import commands
    except ImportError as exc:
        sys.exit(f"trio-proxy: {exc}")

    commands(prog_name="trio-proxy")


def _open_standard_streams() -> None:
    """Give descriptors 0 to 2 a place, if a daemoniser closed them, before anything else gets it.

    Otherwise the first socket would be descriptor 2, and whatever is written to stderr would go to
    a client.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(number, True)  # for workers
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open to the end


if __name__ == "__main__":
    main()
