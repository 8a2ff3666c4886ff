"""Which h11 there is: the one that mypyc has compiled, if the ``speed`` extra is installed.

The two have one API and pass the same tests; the compiled one costs about a third of the time.
``TRIO_PROXY_H11=h11`` in the environment has the plain one used although the other is there.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h11
else:
    try:
        if os.environ.get("TRIO_PROXY_H11") == "h11":
            raise ImportError
        import h11_mypyc as h11
    except ImportError:
        import h11

#: What drives the connections, for the log: a package and its version.
NAME = f"{h11.__name__} {version(h11.__name__.replace('_', '-'))}"

__all__ = ["NAME", "h11"]
