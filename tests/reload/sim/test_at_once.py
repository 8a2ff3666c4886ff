"""Reloads that run into each other, name ports that the system chose, or make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from support.scenario import all_at_once, only
from support.world import GET, METRICS, PROXY, World, settings_for, world
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.server.serving import open_proxy
from trio_proxy.testing import SimNet

ANY = "10.0.0.1:0"


def bound(w: World) -> set[str]:
    """Where anybody listens but for the upstreams."""
    upstreams = {upstream.name for upstream in w.upstreams}
    return {str(listener.address) for listener in w.net.open_listeners} - upstreams


def listens(w: World) -> list[str]:
    return list(map(str, w.proxy.addresses))


async def serves(w: World, address: str) -> bool:
    async with await w.client(address=address) as client:
        return (await client.ask(GET)).status == 200


@pytest.mark.parametrize("seed", range(5))
async def test_reloads_at_once_take_turns(seed: int) -> None:
    """In the end exactly the listeners of one of them are open, and each of those serves."""
    async with world(network=SimNet(seed=seed), timeouts=only()) as w:
        w.upstreams[0].serve()
        plans = [
            [PROXY, "10.0.0.2:80", "10.0.0.3:80"],
            ["10.0.0.3:80", "10.0.0.4:80"],
            ["10.0.0.2:80", ANY],
            [ANY, ANY, PROXY],
            ["10.0.0.4:80", "10.0.0.5:80", "10.0.0.6:80", "10.0.0.2:80"],
        ]

        async def reload(number: int) -> None:
            await w.reload(settings_for(listen=plans[number], timeouts=only()))

        await all_at_once(5, reload)
        assert listens(w) == [
            str(address) if address.port else listens(w)[index]
            for index, address in enumerate(w.proxy.settings.listen)
            if isinstance(address, TcpAddress)
        ]
        assert bound(w) == set(listens(w))
        for address in listens(w):
            assert await serves(w, address)
        await w.reload(settings_for(timeouts=only()))
        assert listens(w) == [PROXY]
        assert bound(w) == {PROXY}


async def reload_to(w: World, *listen: Address | str) -> None:
    await w.reload(settings_for(listen=list(map(str, listen)), timeouts=only()))


@pytest.mark.parametrize("count", [1, 2])
async def test_the_real_ports_keep_their_listeners(count: int) -> None:
    """What `addresses` says can be put in the settings: nothing is closed, nothing bound anew."""
    async with world(listen=[ANY] * count, timeouts=only()) as w:
        w.upstreams[0].serve()
        before, listeners = w.proxy.addresses, w.net.open_listeners
        assert len(set(before)) == count
        client = await w.client()
        for listen in (before, before[::-1], before):
            await reload_to(w, *listen)
            assert w.proxy.addresses == listen
            assert w.net.open_listeners == listeners
            assert all([await serves(w, str(address)) for address in listen])
        assert (await client.ask(GET)).status == 200


@pytest.mark.parametrize("first", [True, False])
async def test_a_real_port_and_one_more(first: bool) -> None:
    """The listener whose port is named stays, the other one is new, in whichever order."""
    async with world(listen=[ANY], timeouts=only()) as w:
        w.upstreams[0].serve()
        old = w.proxy.address
        await reload_to(w, *([old, ANY] if first else [ANY, old]))
        assert w.proxy.addresses[0 if first else 1] == old
        assert len(set(listens(w))) == 2
        assert bound(w) == set(listens(w))


@pytest.mark.parametrize("which", [0, 1])
async def test_one_of_two_chosen_ports_by_its_number(which: int) -> None:
    """Beside a port 0, for which the other one goes on."""
    async with world(listen=[ANY, ANY], timeouts=only()) as w:
        named, other = w.proxy.addresses[which], w.proxy.addresses[1 - which]
        await reload_to(w, ANY, named)
        assert w.proxy.addresses == [other, named]
        assert bound(w) == set(listens(w))


async def test_the_real_metrics_port_keeps_its_listener() -> None:
    """It can be named by its number like any other."""
    async with world(metrics_listen=ANY, timeouts=only()) as w:
        real, listeners = w.proxy.metrics_address, w.net.open_listeners
        await w.reload(settings_for(metrics_listen=str(real), timeouts=only()))
        assert w.proxy.metrics_address == real
        assert w.net.open_listeners == listeners


@pytest.mark.parametrize("metrics", [None, METRICS])
async def test_a_reload_that_is_cancelled_leaves_nothing_bound(metrics: str | None) -> None:
    """It was half-way through its listeners; everything is as it was before."""
    async with world(timeouts=only()) as w:
        hangs_at = metrics or "10.0.0.3:80"
        real_listen = w.net.listen

        async def listen(address: Address, **options: Any) -> Any:
            if str(address) == hangs_at:
                await trio.sleep_forever()
            return await real_listen(address, **options)

        w.net.listen = listen  # type: ignore[method-assign,assignment]
        new = [PROXY, "10.0.0.2:80", "10.0.0.3:80"]
        with trio.move_on_after(1):
            await w.reload(settings_for(listen=new, metrics_listen=metrics, timeouts=only()))
        assert listens(w) == [PROXY]
        assert bound(w) == {PROXY}
        await reload_to(w, PROXY, "10.0.0.2:80")
        assert bound(w) == {PROXY, "10.0.0.2:80"}


@pytest.mark.parametrize("nonsense", [{}, None, "proxy.toml", settings_for])
async def test_what_is_no_settings_object_is_a_type_error(nonsense: Any) -> None:
    """Told in words, before anything was done."""
    with pytest.raises(TypeError, match=r"expected trio_proxy\.Settings, got "):
        async with open_proxy(nonsense, network=SimNet()):
            pytest.fail("it was opened")  # pragma: no cover
    async with world() as w:
        before = w.proxy.settings
        with pytest.raises(TypeError, match=r"expected trio_proxy\.Settings, got "):
            await w.proxy.reload(nonsense)
        assert w.proxy.settings is before
        assert bound(w) == {PROXY}
