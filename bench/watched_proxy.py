"""trio-proxy's own command line, which also says how many tasks it has when it is sent SIGUSR1.

Usage: watched_proxy.py FILE CONFIG. Each signal writes the number of tasks into FILE.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import trio

from trio_proxy.__main__ import main


def report_to(path: str) -> None:
    def write(_number: int, _frame: FrameType | None) -> None:
        # Signal handlers run between two steps of the main thread, which is the event loop's.
        tasks = trio.lowlevel.current_statistics().tasks_living
        with open(f"{path}.new", "w") as file:
            file.write(str(tasks))
        os.rename(f"{path}.new", path)  # so that nobody reads half a number

    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    report_to(sys.argv[1])
    sys.argv[1:] = ["run", sys.argv[2]]
    main()
