"""What the tests of the simulated network share."""

from __future__ import annotations

import trio

from trio_proxy.http.addresses import TcpAddress
from trio_proxy.testing import Peer, SimNet, SimStream

ADDRESS = TcpAddress("10.0.0.1", 80)


async def a_pair(net: SimNet, address: TcpAddress = ADDRESS) -> tuple[SimStream, SimStream]:
    """The dialler's and the listener's end of a connection; the listener is closed."""
    listener = await net.listen(address)
    near = await net.dial(address)
    await listener.wait_readable()
    far = listener.accept_nowait()
    assert far is not None
    listener.close()
    return near, far


def hangups(stream: SimStream) -> list[tuple[float, bool]]:
    """A list that fills with the time and the argument of each `on_hangup`."""
    seen: list[tuple[float, bool]] = []
    stream.on_hangup = lambda reset: seen.append((trio.current_time(), reset))
    return seen


async def read(stream: SimStream, limit: int = 65536) -> bytes:
    """What the stream has next, waiting for it."""
    return await Peer(stream).receive_some(limit)
