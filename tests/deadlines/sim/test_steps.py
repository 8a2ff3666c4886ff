"""What comes in the very step in which its deadline passes, whoever of the two is first."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from support.scenario import GET, OK, connections, ending, how_it_ends, now_ms, only, until_ms
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.testing import SimNet, SimStream

#: Each has trio take up the tasks of a step in other orders.
SEEDS = range(12)
UPSTREAM = "10.1.0.1:9000"


class LateNet(SimNet):
    """The last thing that a dial of the upstream waits for is the test's word."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self.handshakes = trio.lowlevel.ParkingLot()

    async def dial(self, address: Any, *, source: str = "127.0.0.1") -> SimStream:
        stream = await super().dial(address, source=source)
        if str(address) == UPSTREAM:
            try:
                await self.handshakes.park()
            except BaseException:
                stream.close()
                raise
        return stream


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("early_steps", [0, 1])
async def test_a_dial_that_ends_as_its_time_is_up_comes_too_late(
    seed: int, early_steps: int
) -> None:
    """504 at connect_ms: the request is not sent, and no wait without a deadline begins."""
    net = LateNet(seed=seed)
    budgets = only(connect_ms=400, read_ms=1000, total_ms=2000)
    async with world(network=net, timeouts=budgets) as w:
        client = await w.client()
        await client.send(GET)
        await until_ms(400)
        for _ in range(early_steps):
            await trio.lowlevel.checkpoint()
        net.handshakes.unpark_all()
        response = await client.read_response()
        assert (response.status, now_ms()) == (504, 400)
        assert connections(w) == (0, 0)
    assert ending(w.exchanges[0]) == (
        504,
        Reason.CONNECT_TIMEOUT,
        Source.UPSTREAM,
        Phase.CONNECT,
    )


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_first_byte_as_idle_ms_is_over_comes_too_late(seed: int) -> None:
    """The connection is closed, or reset as it has unread bytes; no answer, and no exchange."""
    async with world(network=SimNet(seed=seed), timeouts=only(idle_ms=400)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(OK)
        await client.read_response()
        await until_ms(400)
        await client.send(GET)
        assert (await how_it_ends(client))[0] == b""
        assert connections(w) == (0, 1)
    assert len(w.exchanges) == 1
