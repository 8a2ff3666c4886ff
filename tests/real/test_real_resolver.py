"""Look-ups of host names, with the system's resolver replaced by one that hangs when told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import trio

from trio_proxy.net import resolver
from trio_proxy.net.resolver import LookupFailed, Resolver


class System:
    """Stands in for ``getaddrinfo``: knows ``hosts``, and takes for ever over those ``hanging``."""

    def __init__(self) -> None:
        self.hosts: dict[str, str] = {}
        self.hanging: set[str] = set()
        self.asked: list[str] = []
        self.released = threading.Event()

    def getaddrinfo(self, host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        if host in self.hanging:
            self.released.wait(30)
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.hosts[host], 0))]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    monkeypatch.setattr(resolver.socket, "getaddrinfo", system.getaddrinfo)
    yield system
    system.released.set()


async def test_a_name_that_hangs_blocks_no_other_name(system: System) -> None:
    """However many requests wait for it."""
    system.hosts = {"quick.test": "192.0.2.1"}
    system.hanging = {"stuck.test"}
    resolver = Resolver()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(resolver.resolve, "stuck.test")
        await trio.testing.wait_all_tasks_blocked()
        assert await resolver.resolve("quick.test") == ["192.0.2.1"]
        nursery.cancel_scope.cancel()
    assert sorted(set(system.asked)) == ["quick.test", "stuck.test"]


async def test_all_who_want_a_name_share_one_lookup(system: System) -> None:
    system.hosts = {"app.test": "192.0.2.7"}
    system.hanging = {"app.test"}
    resolver = Resolver()
    found = []

    async def ask() -> None:
        found.append(await resolver.resolve("app.test"))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        system.released.set()
    assert found == [["192.0.2.7"]] * 50
    assert system.asked == ["app.test"]


async def test_an_answer_is_kept_when_the_resolver_fails_or_hangs(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolver, "PATIENCE_SECONDS", 0.01)
    system.hosts = {"app.test": "192.0.2.7"}
    names = Resolver()
    assert await names.resolve("app.test") == ["192.0.2.7"]
    system.hosts = {}
    assert await names.resolve("app.test") == ["192.0.2.7"]
    system.hanging = {"app.test"}
    assert await names.resolve("app.test") == ["192.0.2.7"]
    assert len(system.asked) == 3


async def test_a_name_without_an_address_fails_and_is_asked_for_again(system: System) -> None:
    names = Resolver()
    with pytest.raises(LookupFailed, match=r"cannot resolve new\.test"):
        await names.resolve("new.test")
    system.hosts = {"new.test": "192.0.2.9"}
    assert await names.resolve("new.test") == ["192.0.2.9"]


async def test_stuck_names_are_bounded(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MAX_LOOKUPS", 2)
    system.hanging = {"one.test", "two.test"}
    names = Resolver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.resolve, "one.test")
        nursery.start_soon(names.resolve, "two.test")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LookupFailed, match="too many look-ups"):
            await names.resolve("three.test")
        nursery.cancel_scope.cancel()
