"""Reloads that add, remove and keep listeners, and one that cannot be done."""

from __future__ import annotations

import errno

import pytest

from support.scenario import (
    GET,
    ending,
    now_ms,
    only,
)
from support.world import PROXY, settings_for, world
from trio_proxy.http.errors import Source
from trio_proxy.http.phases import Phase

SECOND = "10.0.0.2:80"


async def test_an_added_listener() -> None:
    """The new address serves, and the old one goes on."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve()
        old = await w.client()
        await w.reload(settings_for(listen=(SECOND, PROXY), timeouts=only()))
        assert list(map(str, w.proxy.addresses)) == [SECOND, PROXY]
        for client in (old, await w.client(address=PROXY), await w.client(address=SECOND)):
            assert (await client.ask(GET)).body == b"ok"


async def test_a_removed_listener() -> None:
    """New connections are refused there; those that it accepted go on."""
    async with world(listen=(PROXY, SECOND), timeouts=only()) as w:
        w.upstreams[0].serve()
        old = await w.client(address=SECOND)
        await old.ask(GET)
        await w.reload(settings_for(listen=(PROXY,), timeouts=only()))
        with pytest.raises(ConnectionRefusedError):
            await w.client(address=SECOND)
        assert (await old.ask(GET)).body == b"ok"
        assert (await (await w.client()).ask(GET)).body == b"ok"


async def test_an_address_that_cannot_be_bound() -> None:
    """OSError, and everything is as it was: listeners, upstreams, deadlines."""
    async with world(timeouts=only(read_ms=1000)) as w:
        taken = await w.net.listen("10.0.0.9:80")
        before = w.proxy.settings
        new = ("10.0.0.8:80", "10.0.0.9:80")
        with pytest.raises(OSError, match="in use") as caught:
            await w.reload(settings_for(["10.1.0.2:9000"], listen=new, timeouts=only(read_ms=1)))
        assert caught.value.errno == errno.EADDRINUSE
        taken.close()
        assert w.proxy.settings is before
        assert list(map(str, w.proxy.addresses)) == [PROXY]
        with pytest.raises(ConnectionRefusedError):
            await w.client(address="10.0.0.8:80")
        client = await w.client()
        await client.send(GET)
        await w.upstreams[0].accept()
        assert (await client.read_response()).status == 504
        assert now_ms() == 1000
    assert ending(w.exchanges[0])[2:] == (Source.UPSTREAM, Phase.AWAIT_HEAD)
