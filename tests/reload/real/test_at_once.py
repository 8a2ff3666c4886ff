"""`Proxy.reload` by several tasks at once, and with real ports, on the system's own sockets."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
import trio

from support.processes import DEADLINE
from support.rawhttp import get
from trio_proxy import Settings, TcpAddress, UpstreamSettings, open_proxy

ANY = TcpAddress("127.0.0.1", 0)
#: Has to be looked up in a thread, so that one reload waits while the others begin.
NAME = TcpAddress("localhost", 0)


def listening_sockets() -> int:
    """How many sockets of this process listen."""
    rows = [
        line.split()
        for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6")
        if os.path.exists(file)
        for line in Path(file).read_text().splitlines()[1:]
    ]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}") in listening
        except FileNotFoundError:  # the directory itself
            continue
    return found


@pytest.mark.parametrize("listen", [(ANY, NAME), (NAME, ANY, NAME)])
async def test_five_reloads_at_once(echo_port: int, listen: tuple[TcpAddress, ...]) -> None:
    """As many sockets listen as are configured, and each serves."""
    before = listening_sockets()
    upstream = UpstreamSettings(host="127.0.0.1", port=echo_port)
    settings = Settings(listen=(ANY,), upstreams=(upstream,))
    with trio.fail_after(DEADLINE):
        async with open_proxy(settings, on_exchange=lambda exchange: None) as proxy:
            first = proxy.address
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    more = listen if number % 2 == 0 else listen[::-1]
                    nursery.start_soon(proxy.reload, attrs.evolve(settings, listen=more))
            assert first in proxy.addresses
            assert len(set(proxy.addresses)) == len(listen)
            assert listening_sockets() - before == len(listen)
            # The same again by the numbers: none is closed, none bound anew.
            addresses = proxy.addresses
            await proxy.reload(attrs.evolve(settings, listen=tuple(addresses)))
            assert proxy.addresses == addresses
            for address in proxy.addresses:
                assert isinstance(address, TcpAddress)
                where = (address.host, address.port)
                assert (await trio.to_thread.run_sync(get, where, "/status/204")).status == 204
            await proxy.reload(attrs.evolve(settings, listen=(first,)))
            assert proxy.addresses == [first]
            assert listening_sockets() - before == 1
    assert listening_sockets() == before
