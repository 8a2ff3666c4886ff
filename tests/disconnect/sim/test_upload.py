"""The client goes away in or after its upload: the upstream's work ends within 100 ms."""

from __future__ import annotations

import trio

from support.conversation import Speaker
from support.departures import Leave, any_way, in_mid_body, left
from support.scenario import post, send_quietly
from support.world import World
from trio_proxy.http.phases import Phase


@in_mid_body
async def test_while_uploading_with_an_upstream_that_reads(leave: Leave) -> None:
    """The upstream sees the body end too early."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(1_000_000))
        upstream = await w.upstreams[0].accept()
        w.helpers.start_soon(swallow, upstream)
        w.helpers.start_soon(send_quietly, client, bytes(500_000))

    await left(begin, leave, Phase.SEND)


async def swallow(peer: Speaker) -> None:
    """Read until the proxy hangs up, but leave the end itself unread."""
    while not peer.stream.is_readable() or peer.stream.unread_bytes():
        await peer.stream.wait_readable()
        if not peer.stream.unread_bytes():
            return
        await peer.receive_some()


@in_mid_body
async def test_while_uploading_to_an_upstream_that_takes_nothing(leave: Leave) -> None:
    """The FIN lies behind body bytes that nobody reads, and is seen all the same."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(1_000_000))
        await w.upstreams[0].accept()
        w.helpers.start_soon(send_quietly, client, bytes(500_000))

    await left(begin, leave, Phase.SEND)


@in_mid_body
async def test_while_it_stalls_in_its_upload(leave: Leave) -> None:
    """Only the client was to be waited for."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(10) + b"123")
        await w.upstreams[0].accept()

    await left(begin, leave, Phase.SEND)


@in_mid_body
async def test_while_it_waits_for_a_100(leave: Leave) -> None:
    """It will never send the body that it announced."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(10, b"Expect: 100-continue\r\n"))
        await (await w.upstreams[0].accept()).read_head()

    await left(begin, leave, Phase.AWAIT_HEAD)


@any_way
async def test_after_an_upload(leave: Leave) -> None:
    """A body that was sent whole is like none."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(3))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(1)
        await client.send(b"abc")
        assert (await upstream.read_request()).body == b"abc"

    await left(begin, leave, Phase.AWAIT_HEAD)
