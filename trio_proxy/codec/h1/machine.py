"""Which h11 there is: the one that mypyc has compiled, if the ``speed`` extra is installed.

The two have one API and pass the same tests; the compiled one takes about a third of the time. The
environment variable ``TRIO_PROXY_H11`` insists on one of them: ``h11`` or ``h11_mypyc``. Raises
ImportError if that one is not there.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

_WANTED = os.environ.get("TRIO_PROXY_H11", "")

if TYPE_CHECKING or _WANTED == "h11":
    import h11
elif _WANTED in ("", "h11_mypyc"):
    try:
        import h11_mypyc as h11
    except ImportError:
        if _WANTED:
            raise
        import h11
else:
    raise ImportError(f"TRIO_PROXY_H11: is {_WANTED!r} (expected h11 or h11_mypyc)")

#: What drives the connections, for the log: a package and its version.
NAME = f"{h11.__name__} {version(h11.__name__.replace('_', '-'))}"


def process_event(machine: h11.Connection, event: h11.Event) -> None:
    """Have the state machine go through an event of the peer's that h11 has not parsed itself.

    It is what ``next_event`` does with the event that it has made of the bytes, and the one thing
    used here that h11 does not declare public: `tests/strictness/codec/test_standins.py` compares
    the two. Raises h11's LocalProtocolError if the peer cannot do that now.
    """
    machine._process_event(machine.their_role, event)


__all__ = ["NAME", "h11", "process_event"]
