"""A strict reader of chunked framing, in front of h11's lenient one.

h11 decodes chunked bodies; this guard walks over the same bytes first, without copying them, and
refuses what h11 would let pass (a bare LF, a bare CR in an extension, white space after a size,
endless extensions). It says how far the bytes have been judged: h11 is never fed a byte beyond
that, nor one beyond the end of the message.
"""

from __future__ import annotations

import enum

from trio_proxy.codec.h1.grammar import CHUNK_LINE, TRAILER_LINE
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.names import TRANSFER_ENCODING, kinds_of

#: Longest chunk line, extensions included. Node and Go allow 16 KiB of extensions in a body;
#: nobody is known to send any.
MAX_CHUNK_LINE = 256

#: Chunks judged in one go. h11 takes about 8 µs for each, and one read can hold 10,000 tiny ones:
#: the caller lets other connections have a turn between two goes.
MAX_CHUNKS_AT_ONCE = 64


class _State(enum.Enum):
    CHUNK_LINE = enum.auto()
    DATA = enum.auto()
    TRAILERS = enum.auto()


class ChunkGuard:
    """Follows one chunked body."""

    __slots__ = (
        "_chunks_left",
        "_data_left",
        "_fields_left",
        "_state",
        "_trailer_bytes_left",
        "done",
    )

    def __init__(self, max_trailer_bytes: int, max_trailer_fields: int) -> None:
        self.done = False
        self._state = _State.CHUNK_LINE
        self._data_left = 0  # bytes of the current chunk still to come, its CRLF included
        self._trailer_bytes_left = max_trailer_bytes
        self._fields_left = max_trailer_fields
        self._chunks_left = MAX_CHUNKS_AT_ONCE

    @property
    def paused(self) -> bool:
        """Whether the last `scan` stopped early, so that the rest can be scanned at once."""
        return not self._chunks_left

    def scan(self, data: bytes) -> int:
        """How many leading bytes of ``data`` are sound and belong to the body; `done` at its end.

        Stops after `MAX_CHUNKS_AT_ONCE` chunks (`paused`).

        Present the rest again, with more behind it. What is held back is an incomplete line and
        bounded. Raises ProtocolError on the first byte that is out of place.
        """
        position = 0
        self._chunks_left = MAX_CHUNKS_AT_ONCE
        while position < len(data) and not self.done and self._chunks_left:
            if self._state is _State.DATA:
                step = self._skip_data(data, position)
            elif self._state is _State.CHUNK_LINE:
                step = self._scan_chunk_line(data, position)
            else:
                step = self._scan_trailer_line(data, position)
            if step == 0:
                break
            position += step
        return position

    def _skip_data(self, data: bytes, position: int) -> int:
        """Pass over chunk data; its last two bytes must be CRLF."""
        step = min(self._data_left, len(data) - position)
        left = self._data_left - step
        if left < 2:  # all of the CRLF, or its CR, lies in this step
            end = data[position + max(0, step - 2 + left) : position + step]
            if end != b"\r\n"[: 2 - left][-len(end) :]:
                raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "chunk data does not end in CRLF")
        self._data_left = left
        if left == 0:
            self._state = _State.CHUNK_LINE
        return step

    def _scan_chunk_line(self, data: bytes, position: int) -> int:
        line = self._line(data, position, MAX_CHUNK_LINE, Reason.AMBIGUOUS_FRAMING)
        if line is None:
            return 0
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, f"malformed chunk line {line[:40]!r}")
        size = int(match[1], 16)
        self._chunks_left -= 1
        self._data_left = size + 2
        self._state = _State.DATA if size else _State.TRAILERS
        return len(line)

    def _scan_trailer_line(self, data: bytes, position: int) -> int:
        line = self._line(data, position, self._trailer_bytes_left + 2, Reason.HEAD_TOO_LARGE)
        if line is None:
            return 0
        if line == b"\r\n":
            self.done = True
        elif TRAILER_LINE.fullmatch(line) is None:
            raise ProtocolError(Reason.MALFORMED_REQUEST, f"malformed trailer {line[:40]!r}")
        elif kinds_of(line.partition(b":")[0]) & TRANSFER_ENCODING:
            # It would have to be ignored (RFC 9112 §7.1.2); a reader that does not is a way in.
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Transfer-Encoding in a trailer")
        else:
            self._trailer_bytes_left -= len(line)
            self._fields_left -= 1
            if self._trailer_bytes_left < 0 or self._fields_left < 0:
                raise ProtocolError(Reason.HEAD_TOO_LARGE, "trailer section too large")
        return len(line)

    @staticmethod
    def _line(data: bytes, position: int, longest: int, reason: Reason) -> bytes | None:
        """The line at ``position`` up to its LF; None if that has not come and still may."""
        end = data.find(b"\n", position, position + longest)
        if end >= 0:
            return data[position : end + 1]
        if len(data) - position >= longest:
            raise ProtocolError(reason, "line too long")
        if b"\r" in data[position:-1]:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "bare CR in chunked framing")
        return None
