"""What holds of sticky clients whatever happens to the upstreams, in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversation import Message
from support.pool_plans import BUDGETS, files, steps, take
from support.pools import serve
from support.world import World, run, world
from trio_proxy.settings import Balance, Settings

STICKY = Balance(sticky_cookie="route", sticky_secret="s")


async def ask(w: World, cookie: str) -> Message | None:
    """The answer to a client with that cookie; None if it was cut off."""
    async with await w.client() as client:
        request = f"GET / HTTP/1.1\r\nHost: a\r\nCookie: route={cookie}\r\n\r\n"
        await client.send(request.encode())
        try:
            return await client.read_response()
        except EOFError:
            return None


async def visit(w: World, cookie: str) -> str:
    """One request of a client that keeps its cookie; the cookie that it has afterwards."""
    answer = await ask(w, cookie)
    if answer is None:
        return cookie
    exchange, told = w.exchanges[-1], answer.all(b"set-cookie")
    if exchange.error is not None:
        assert told == []
        return cookie
    served_by = w.proxy.pools["default"].member(exchange.upstream).cookie
    if served_by == cookie:
        assert told == []
    else:
        assert told == [f"route={served_by}; Path=/; HttpOnly; SameSite=Lax".encode()]
    return served_by


@settings(max_examples=30, deadline=None)
@given(files(balance=STICKY), st.lists(steps(balance=STICKY), max_size=25))
def test_a_client_knows_where_it_is_stuck(first: Settings, plan: list[tuple[str, Any]]) -> None:
    """A cookie is set exactly when the upstream that answered is not that of the cookie sent."""

    async def main() -> None:
        async with world(upstreams=3, timeouts=BUDGETS, balance=STICKY) as w:
            every = serve(w)
            await w.reload(first)
            cookie = ""
            for step, what in plan:
                await take(w, every, step, what)
                cookie = await visit(w, cookie)

    run(main)


@settings(max_examples=30, deadline=None)
@given(files(balance=STICKY), st.lists(steps(balance=STICKY), max_size=25))
def test_a_client_is_moved_for_a_reason(first: Settings, plan: list[tuple[str, Any]]) -> None:
    """It stays where it is while that upstream is configured and has not failed."""

    async def main() -> None:
        async with world(upstreams=3, timeouts=BUDGETS, balance=STICKY) as w:
            every = serve(w)
            await w.reload(first)
            cookie, failures = "", 0
            for step, what in plan:
                await take(w, every, step, what)
                old, known = cookie, failures
                cookie = await visit(w, cookie)
                failures = sum(
                    one.outcome not in ("200", "stale")
                    for each in w.exchanges
                    for one in each.tries
                )
                checks = w.proxy.settings.health.path
                is_member = old in {member.cookie for member in w.proxy.pools["default"].members}
                if is_member and not checks and not failures and not known:
                    assert cookie == old

    run(main)
