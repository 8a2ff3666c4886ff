"""New settings come into force in all parts together, or in none."""

from __future__ import annotations

import pytest
import trio

from trio_proxy.server.parts import put_in_force
from trio_proxy.settings import Settings, UpstreamSettings

SETTINGS = Settings(upstreams=(UpstreamSettings(host="a", port=1),))


class Noted:
    """A part that writes down what it is told."""

    def __init__(self, name: str, notes: list[str], error: BaseException | None = None) -> None:
        self._name = name
        self._notes = notes
        self._error = error

    async def prepare(self, settings: Settings) -> None:
        assert settings is SETTINGS
        await trio.lowlevel.checkpoint()
        self._notes.append(f"prepare {self._name}")
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        self._notes.append(f"commit {self._name}")

    def abandon(self) -> None:
        self._notes.append(f"abandon {self._name}")


async def test_all_are_prepared_before_the_first_is_committed() -> None:
    notes: list[str] = []
    await put_in_force([Noted(name, notes) for name in "abc"], SETTINGS)
    assert notes == [f"{step} {name}" for step in ("prepare", "commit") for name in "abc"]


@pytest.mark.parametrize("error", [OSError("taken"), KeyboardInterrupt()])
async def test_what_one_cannot_do_the_others_forget(error: BaseException) -> None:
    """In the opposite order; it has undone its own, and those behind it know of nothing."""
    notes: list[str] = []
    parts = [Noted("a", notes), Noted("b", notes), Noted("c", notes, error), Noted("d", notes)]
    with pytest.raises(type(error)) as caught:
        await put_in_force(parts, SETTINGS)
    assert caught.value is error
    assert notes == ["prepare a", "prepare b", "prepare c", "abandon b", "abandon a"]


async def test_who_is_cancelled_leaves_nothing_prepared() -> None:
    notes: list[str] = []

    class Stuck(Noted):
        async def prepare(self, settings: Settings) -> None:
            await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await put_in_force([Stuck("a", notes)], SETTINGS)
    assert notes == []
    with trio.move_on_after(0.01):
        await put_in_force([Noted("a", notes), Stuck("b", notes)], SETTINGS)
    assert notes == ["prepare a", "abandon a"]
