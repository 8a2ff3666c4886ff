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

__all__ = ["NAME", "h11"]
