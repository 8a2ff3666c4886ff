"""The field lines of a head, taken apart and checked in one pass.

`KINDS` knows what a name means and that it is a name, so each line costs one look-up of it.
"""

from __future__ import annotations

from trio_proxy.http.headers import TEXT, Headers, Marks, headers_read
from trio_proxy.http.names import HOST, INTERPRETED, INVALID, KINDS, kinds_of


def read_fields(head: bytes, lines: list[bytes]) -> tuple[Headers, dict[int, list[bytes]]] | None:
    """The fields of a head's ``lines``, and the values of those that are `INTERPRETED`, by kind.

    The list of lines becomes that of the fields. None if a line is no well-formed field (RFC 9112
    §5), or if the head has a control or a bare CR or LF anywhere.
    """
    known = KINDS
    marks: Marks = []
    seen = 0
    values: dict[int, list[bytes]] = {}
    for index, line in enumerate(lines):
        # Nearly all lines are a known name, a colon and one blank, and the value alone.
        name, colon, value = line.partition(b": ")
        kinds = known.get(name)
        if kinds is None or not value or value[0] <= 0x20 or value[-1] <= 0x20:
            name, colon, value = line.partition(b":")
            if not colon:
                return None
            value = value.strip(b" \t")
            kinds = kinds_of(name)
            if kinds & INVALID:
                return None
            lines[index] = name + b": " + value
        if kinds:
            marks.append((index, kinds))
            if index or not kinds & HOST:
                seen |= kinds
            if kinds & INTERPRETED:
                values.setdefault(kinds & INTERPRETED, []).append(value)
    # Besides text there is nothing in the head but the line ends at which it was split.
    if head.translate(None, TEXT) != b"\r\n" * (len(lines) + 2):
        return None
    return headers_read(lines, marks, seen), values
