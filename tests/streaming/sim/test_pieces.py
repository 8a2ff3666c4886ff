"""How much of a body is handed over at once: more to a peer that takes it, little to others."""

from __future__ import annotations

import pytest

from support.simnet_pairs import a_pair
from trio_proxy.exchange.streams import (
    LEAST_PIECE_BYTES,
    MAX_PIECE_BYTES,
    PIECE_BYTES,
    READ_SIZE,
    note_piece,
)
from trio_proxy.testing import SimNet

#: For a link that has room for whatever comes.
VAST = 64 * MAX_PIECE_BYTES


async def test_pieces_double_while_they_are_taken_whole() -> None:
    """Up to a bound."""
    near, _ = await a_pair(SimNet(buffer=VAST))
    sizes = []
    while not sizes or near.piece_bytes > sizes[-1]:
        sizes.append(near.piece_bytes)
        note_piece(near, sizes[-1], near.send_nowait(bytes(sizes[-1])))
    assert sizes == [PIECE_BYTES << n for n in range(5)]
    assert sizes[-1] == MAX_PIECE_BYTES


async def test_the_end_of_a_body_says_nothing() -> None:
    """It is a smaller piece: that it was taken does not show that more would be."""
    near, _ = await a_pair(SimNet(buffer=VAST))
    note_piece(near, PIECE_BYTES - 1, PIECE_BYTES - 1)
    assert near.piece_bytes == PIECE_BYTES


async def test_a_piece_that_was_not_taken_whole() -> None:
    """What is held for this peer is no more than a small piece from then on."""
    near, _ = await a_pair(SimNet(buffer=VAST))
    for _ in range(2):
        note_piece(near, near.piece_bytes, near.piece_bytes)
    assert near.piece_bytes > PIECE_BYTES
    note_piece(near, 1000, 999)
    assert near.piece_bytes == LEAST_PIECE_BYTES


@pytest.mark.parametrize(
    ("before", "most"), [(0, LEAST_PIECE_BYTES), (READ_SIZE, PIECE_BYTES)], ids=["body", "heads"]
)
async def test_what_a_peer_leaves_that_stops_reading(before: int, most: int) -> None:
    """Is little, however large the buffers in between are; a bit more if a head goes before it."""
    for room in range(READ_SIZE, 6 * MAX_PIECE_BYTES, 99_991):
        near, _ = await a_pair(SimNet(buffer=room))
        sent = size = 0
        while sent == size:
            near.send_nowait(bytes(before))
            size = near.piece_bytes
            sent = near.send_nowait(bytes(size))
            note_piece(near, size, sent)
        assert size - sent <= most
