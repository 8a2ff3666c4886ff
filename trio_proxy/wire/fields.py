"""The field lines of a head, taken apart, checked and sorted in one pass.

`KINDS` knows what a name means and that it is a name, so each line costs one look-up of it.
"""

from __future__ import annotations

from trio_proxy.names import INTERPRETED, INVALID, KINDS
from trio_proxy.sorted_fields import SortedFields
from trio_proxy.wire.grammar import TEXT


def sort_fields(
    head: bytes, lines: list[bytes], set_aside: int
) -> tuple[SortedFields, dict[int, list[bytes]]] | None:
    """The fields of a head's ``lines``, and the values of those that are `INTERPRETED`, by kind.

    ``set_aside`` are the kinds that are kept out of the plain fields. None if a line is no
    well-formed field (RFC 9112 §5), or if the head has a control or a bare CR or LF anywhere.
    """
    fields, plain, seen = SortedFields(), [], 0
    values: dict[int, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        field = (name, value.strip(b" \t"))
        fields.append(field)
        if kinds := KINDS[name]:
            seen |= kinds
            if kinds & INTERPRETED:
                values.setdefault(kinds & INTERPRETED, []).append(field[1])
            if kinds & set_aside:
                continue
        plain.append(field)
    # Besides text there is nothing in the head but the line ends at which it was split.
    if seen & INVALID or head.translate(None, TEXT) != b"\r\n" * (len(lines) + 2):
        return None
    fields.plain, fields.kinds = plain, seen
    return fields, values
