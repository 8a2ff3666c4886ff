"""The cyclic garbage collector of a process that serves and does nothing else.

An exchange leaves no reference cycle, however it ends, so there is next to nothing to be found. But
Python looks whenever 700 objects more exist than at the last look, which every burst of requests
brings about, and sooner or later it walks everything that was ever imported.
"""

from __future__ import annotations

import gc

#: By how many objects there must be more than at the last look before the youngest are looked at; a
#: request under way has some 40, so this is a thousand of them at once. The second and third say
#: how many such looks go by before the older ones are.
THRESHOLDS = (50_000, 20, 50)


def quieten() -> None:
    """Look less often, and never again at what exists now. Call it once, when all is started.

    It concerns the whole process: only for one that is the proxy's own, not for an application
    that embeds it.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
