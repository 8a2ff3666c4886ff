"""The field lines of a head, taken apart, checked and sorted in one pass.

`KINDS` knows what a name means and that it is a name, so each line costs one look-up of it.
"""

from __future__ import annotations

from trio_proxy.codec.h1.grammar import TEXT
from trio_proxy.http.headers import SortedFields
from trio_proxy.http.messages import Field
from trio_proxy.http.names import INTERPRETED, INVALID, KINDS, kinds_of


def sort_fields(
    head: bytes, lines: list[bytes], set_aside: int
) -> tuple[SortedFields, dict[int, list[bytes]]] | None:
    """The fields of a head's ``lines``, and the values of those that are `INTERPRETED`, by kind.

    ``set_aside`` are the kinds that are kept out of the plain fields. None if a line is no
    well-formed field (RFC 9112 §5), or if the head has a control or a bare CR or LF anywhere.
    """
    seen, known = 0, KINDS
    every: list[Field] = []
    plain: list[Field] = []
    plain_lines: list[bytes] = []
    values: dict[int, list[bytes]] = {}
    for line in lines:
        # Nearly all lines are a known name, a colon and one blank, and the value alone.
        written = line
        name, colon, value = line.partition(b": ")
        kinds = known.get(name)
        if kinds is None or not value or value[0] <= 0x20 or value[-1] <= 0x20:
            name, colon, value = line.partition(b":")
            if not colon:
                return None
            value = value.strip(b" \t")
            kinds = kinds_of(name)
            written = name + b": " + value
        field = (name, value)
        every.append(field)
        if kinds:
            seen |= kinds
            if kinds & INTERPRETED:
                values.setdefault(kinds & INTERPRETED, []).append(value)
            if kinds & set_aside:
                continue
        plain.append(field)
        plain_lines.append(written)
    # Besides text there is nothing in the head but the line ends at which it was split.
    if seen & INVALID or head.translate(None, TEXT) != b"\r\n" * (len(lines) + 2):
        return None
    fields = SortedFields(every)
    fields.plain, fields.lines, fields.kinds = plain, plain_lines, seen
    return fields, values
