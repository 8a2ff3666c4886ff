"""Test your own configuration without sockets and without waiting.

`SimNet` is a network in memory, with latency, bandwidth, bounded buffers and faults. A proxy that
was given one as its network runs whole under a virtual clock
(``trio.testing.MockClock(autojump_threshold=0)``, or pytest-trio's ``autojump_clock`` fixture), so
a test of a 60 s timeout takes a millisecond and gives the same result every time.
"""

from __future__ import annotations

from trio_proxy.testing.listener import SimListener
from trio_proxy.testing.peer import Peer, Upstream
from trio_proxy.testing.pipe import Link
from trio_proxy.testing.simnet import SimNet
from trio_proxy.testing.stream import SimStream

__all__ = ["Link", "Peer", "SimListener", "SimNet", "SimStream", "Upstream"]
