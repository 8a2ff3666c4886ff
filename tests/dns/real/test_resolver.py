"""Look-ups of host names, with the system's resolver replaced by one that hangs when told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import trio

from support.processes import wait_until
from trio_proxy.net.dns import resolver
from trio_proxy.net.dns.resolver import LookupFailed, Resolver


class System:
    """Stands in for ``getaddrinfo``: knows ``hosts``, and takes for ever over those ``hanging``."""

    def __init__(self) -> None:
        #: The addresses of each, with blanks between them.
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
        addresses = self.hosts[host].split()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]


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
    asked = {"quick.test", "stuck.test"}
    wait_until(lambda: set(system.asked) == asked, "the threads of both look-ups begin")


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
    monkeypatch.setattr(resolver, "PATIENCE_SECONDS", 30.0)
    system.hosts = {"app.test": "192.0.2.7"}
    names = Resolver()
    assert await names.resolve("app.test") == ["192.0.2.7"]
    system.hosts = {}
    assert await names.resolve("app.test") == ["192.0.2.7"]
    monkeypatch.setattr(resolver, "PATIENCE_SECONDS", 0.01)
    system.hanging = {"app.test"}
    assert await names.resolve("app.test") == ["192.0.2.7"]
    wait_until(lambda: len(system.asked) == 3, "the thread of the last look-up begins")


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


async def test_a_name_that_is_known_is_still_found_when_too_many_are_stuck(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old answer is better than none."""
    monkeypatch.setattr(resolver, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolver, "MAX_LOOKUPS", 1)
    system.hosts = {"app.test": "192.0.2.7"}
    system.hanging = {"stuck.test"}
    names = Resolver()
    await names.resolve("app.test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.resolve, "stuck.test")
        await trio.testing.wait_all_tasks_blocked()
        assert await names.resolve("app.test") == ["192.0.2.7"]
        nursery.cancel_scope.cancel()


async def test_a_failure_is_told_in_words(system: System) -> None:
    """By what the system says, without a number."""
    with pytest.raises(LookupFailed) as caught:
        await Resolver().resolve("new.test")
    assert str(caught.value) == "cannot resolve new.test: Name or service not known"


# Refreshes


async def test_a_refresh_asks_anew(system: System) -> None:
    """However fresh the last answer is; and dials profit by it."""
    system.hosts = {"app.test": "192.0.2.7"}
    names = Resolver()
    assert await names.refresh("app.test") == ["192.0.2.7"]
    system.hosts = {"app.test": "192.0.2.8"}
    assert await names.refresh("app.test") == ["192.0.2.8"]
    assert await names.resolve("app.test") == ["192.0.2.8"]
    assert system.asked == ["app.test"] * 2


async def test_a_refresh_that_fails_says_so_though_dials_have_an_answer(system: System) -> None:
    """Who keeps old members keeps them knowingly."""
    system.hosts = {"app.test": "192.0.2.7"}
    names = Resolver()
    await names.refresh("app.test")
    system.hosts = {}
    with pytest.raises(LookupFailed, match=r"cannot resolve app\.test: Name or service not known"):
        await names.refresh("app.test")
    assert await names.resolve("app.test") == ["192.0.2.7"]


async def test_a_refresh_that_hangs_is_bounded(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up goes on in its thread, and the next refresh shares it."""
    monkeypatch.setattr(resolver, "LIFETIME_SECONDS", 0.01)
    system.hanging = {"app.test"}
    names = Resolver()
    for _ in range(2):
        with pytest.raises(LookupFailed, match=r"no answer within 0\.01 s"):
            await names.refresh("app.test")
    wait_until(lambda: system.asked, "the thread of the look-up begins")
    assert system.asked == ["app.test"]


async def test_a_refresh_gives_every_address_in_a_stable_order(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number, IPv4 first, up to a bound; a dial takes the first few as they come."""
    monkeypatch.setattr(resolver, "MAX_MEMBERS", 3)
    monkeypatch.setattr(resolver, "MAX_ADDRESSES", 2)
    system.hosts = {"app.test": "192.0.2.10 fd00::1 192.0.2.9 fe80::1%1 192.0.2.10"}
    names = Resolver()
    assert await names.refresh("app.test") == ["192.0.2.9", "192.0.2.10", "fd00::1"]
    assert await names.resolve("app.test") == ["192.0.2.10", "fd00::1"]
