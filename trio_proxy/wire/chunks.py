"""A strict reader of chunked framing, in front of h11's lenient one.

h11 decodes chunked bodies; this guard walks over the same bytes first, without copying them, and
refuses what h11 would let pass (a bare CR in an extension, white space after a size, endless
extensions). It also says where the message ends, so that h11 is never fed a byte beyond it.
"""

from __future__ import annotations

from trio_proxy.errors import ProtocolError, Reason
from trio_proxy.wire.grammar import CHUNK_LINE, TRAILERS

#: Longest chunk line, extensions included. Node and Go allow 16 KiB of extensions in a body;
#: nobody is known to send any.
MAX_CHUNK_LINE = 256


class ChunkGuard:
    """Follows one chunked body. Feed it every byte once, in order, in any pieces."""

    __slots__ = ("_data_left", "_line", "_max_fields", "_max_trailers", "_trailers", "done")

    def __init__(self, max_trailer_bytes: int, max_trailer_fields: int) -> None:
        self.done = False
        self._data_left = 0  # bytes of the current chunk still to come, its CRLF included
        self._line = b""  # an incomplete chunk line, or the CRLF behind the data
        self._trailers: bytes | None = None  # what has come behind the last chunk
        self._max_trailers = max_trailer_bytes
        self._max_fields = max_trailer_fields

    def scan(self, data: bytes) -> int:
        """How many leading bytes of ``data`` belong to the body; sets `done` at its end.

        Raises ProtocolError on the first byte that is out of place.
        """
        position = 0
        while position < len(data) and not self.done:
            if self._trailers is not None:
                position = self._scan_trailers(data, position)
            elif self._data_left:
                position = self._skip_data(data, position)
            else:
                position = self._scan_line(data, position)
        return position

    def _skip_data(self, data: bytes, position: int) -> int:
        """Pass over chunk data; its last two bytes must be CRLF."""
        step = min(self._data_left, len(data) - position)
        tail = self._data_left - step  # 0 or 1 when (part of) the CRLF lies in this step
        if tail < 2:
            end = data[position + max(0, step - (2 - tail)) : position + step]
            expected = b"\r\n"[: 2 - tail][-len(end) :]
            if end != expected:
                raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "chunk data does not end in CRLF")
        self._data_left = tail
        return position + step

    def _scan_line(self, data: bytes, position: int) -> int:
        newline = data.find(b"\n", position, position + MAX_CHUNK_LINE)
        stop = len(data) if newline < 0 else newline + 1
        line = self._line + data[position:stop]
        if len(line) > MAX_CHUNK_LINE:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "chunk line too long")
        if newline < 0:
            if b"\r" in line[:-1]:
                raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "bare CR in a chunk line")
            self._line = line
            return stop
        self._line = b""
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, f"malformed chunk line {line[:40]!r}")
        size = int(match[1], 16)
        if size:
            self._data_left = size + 2
        else:
            self._trailers = b""
        return stop

    def _scan_trailers(self, data: bytes, position: int) -> int:
        """Trailer lines up to and including the empty line."""
        assert self._trailers is not None
        before = len(self._trailers)
        block = self._trailers + data[position : position + self._max_trailers + 2]
        if block.startswith(b"\r\n"):
            end = 2
        else:
            found = block.find(b"\r\n\r\n", max(0, before - 3))
            end = found + 4 if found >= 0 else -1
        if end < 0:
            if len(block) > self._max_trailers:
                raise ProtocolError(Reason.HEAD_TOO_LARGE, "trailer section too large")
            self._trailers = block
            return position + len(block) - before
        lines = block[: end - 2]
        if TRAILERS.fullmatch(lines) is None:
            raise ProtocolError(Reason.MALFORMED_REQUEST, "malformed trailer section")
        if lines.count(b"\n") > self._max_fields:
            raise ProtocolError(Reason.HEAD_TOO_LARGE, "too many trailer fields")
        self.done = True
        return position + end - before
