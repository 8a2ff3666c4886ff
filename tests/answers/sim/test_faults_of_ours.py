"""A fault of our own in choosing an upstream: it costs the one request that it was met for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trio.testing import wait_all_tasks_blocked as settle

from support.crowd import NO_WAIT, Crowd, each_works, told
from support.scenario import only, until_ms
from support.world import World, world
from trio_proxy.http.errors import Reason


async def one_works_and_two_wait(w: World) -> Crowd:
    crowd = each_works(w)
    await crowd.come(0, 1, 2)
    assert crowd.waiting == 2
    return crowd


class Broken(list[Any]):
    """The members of a pool, of whom the first look gives an error, and puts things right."""

    def __init__(self, picker: Any) -> None:
        super().__init__(picker._primaries)
        self.picker = picker

    def __iter__(self) -> Iterator[Any]:
        self.picker._primaries = list(super().__iter__())
        raise ZeroDivisionError("a bug in a policy")


def break_the_next_choice(w: World) -> None:
    """The next time that anybody asks for an upstream, the policy has a bug."""
    picker = w.proxy.pools["default"]._picker
    picker._primaries = Broken(picker)
    picker.condition_changed()


async def test_a_fault_as_the_background_serves_the_queue_costs_one_answer() -> None:
    """500 for the first in line; the others are served, and the proxy goes on."""
    async with world(timeouts=only(), limits=NO_WAIT, errors_in_log=True) as w:
        crowd = await one_works_and_two_wait(w)
        break_the_next_choice(w)
        w.proxy.pools["default"]._attention.set()
        await settle()
        await until_ms(1000)
        await crowd.come(3)
        await until_ms(2000)
        assert told(crowd, 0, 2, 3) == [(200, 100), (200, 200), (200, 1100)]
        assert told(crowd, 1) == [(500, 0)]
    assert crowd.reason(1) is Reason.INTERNAL
    assert w.messages(40)[:1] == ["internal error in choosing an upstream"]


async def test_a_fault_as_a_connection_comes_free_does_not_cost_who_freed_it() -> None:
    """Its answer is whole; 500 goes to the one that was to have the connection next."""
    async with world(timeouts=only(), limits=NO_WAIT, errors_in_log=True) as w:
        crowd = await one_works_and_two_wait(w)
        break_the_next_choice(w)
        await until_ms(1000)
        assert told(crowd, 0, 1, 2) == [(200, 100), (500, 100), (200, 200)]


async def test_a_fault_in_a_request_of_ones_own_costs_that_one() -> None:
    """500 for it, and 200 for the next."""
    async with world(timeouts=only(), limits=NO_WAIT, errors_in_log=True) as w:
        crowd = each_works(w)
        break_the_next_choice(w)
        await crowd.come(0, 1)
        await until_ms(1000)
        assert told(crowd, 0, 1) == [(500, 0), (200, 100)]
