"""The fields of one message: in order, with the letter case of their names and with repeats.

`Headers` keeps them as the lines that HTTP/1 has for them, and as nothing else. So the lines of a
head that was read are written as they came for as long as nobody changes them, and there is no
second form of them in which a change could be missing. Rejected: pairs with the lines as a cache,
which costs three objects a field and an invalidation at each change.

Whatever gets in is one field and no more: a name is a token, and no value can end its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias, TypeVar, overload

from trio_proxy.http.names import HOST, INVALID, key_of, kinds_of

#: A name and a value.
Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = Sequence[Field]

#: Index and kinds of each field that has kinds; such a list is never changed.
Marks: TypeAlias = list[tuple[int, int]]

_Default = TypeVar("_Default")

#: The bytes that a line may hold: anything but controls, of which a tab is none here.
TEXT = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

_BLANKS = b" \t"
_NOTHING: frozenset[bytes] = frozenset()
#: How much of what is refused an error shows.
_SHOWN = 40


class Headers:  # noqa: PLW1641 (what can be changed has no hash)
    """The ordered fields of a message; names are compared without regard to letter case.

    Names and values are bytes; where they are given, str is taken for Latin-1. Blanks around a
    value are no part of it (RFC 9110 §5.5).

    For codecs to read: ``lines`` has each field as ``name: value``, and ``kinds`` is the OR of what
    `trio_proxy.http.names` says about the fields, but for a Host in front, where it belongs.
    """

    __slots__ = ("_marks", "is_fresh", "kinds", "lines")

    def __init__(self, fields: Iterable[tuple[bytes | str, bytes | str]] = ()) -> None:
        """Raises ValueError as `add` does."""
        self.lines: list[bytes] = []
        self.kinds = 0
        #: Nobody has them yet but who has just made them, so a message can take them as they are.
        self.is_fresh = False
        #: None if they have to be found first.
        self._marks: Marks | None = None
        if isinstance(fields, Headers):
            self.lines += fields.lines
            self.kinds = fields.kinds
            self._marks = fields._marks
        elif fields:
            self.extend([(_name_of(name), _value_of(value)) for name, value in fields])

    @overload
    def get(self, name: bytes | str) -> bytes | None: ...

    @overload
    def get(self, name: bytes | str, default: _Default) -> bytes | _Default: ...

    def get(self, name: bytes | str, default: object = None) -> object:
        """The value of the first field of that name, or the default."""
        key = _lower(name)
        size = len(key)
        for line in self.lines:
            if line[:size].lower() == key and line[size : size + 1] == b":":
                return line[size + 2 :]
        return default

    def get_all(self, name: bytes | str) -> list[bytes]:
        """The values of all fields of that name."""
        begin = len(name) + 2
        return [self.lines[place][begin:] for place in self._places_of(name)]

    def cookies(self, name: bytes) -> list[bytes]:
        """The values of the cookies of that name (RFC 6265 §4.2); there may be several (§5.4)."""
        prefix = name + b"="
        cookies = b";".join(self.get_all(b"cookie")).split(b";")
        pairs = [cookie.strip(_BLANKS) for cookie in cookies]
        return [pair[len(prefix) :] for pair in pairs if pair.startswith(prefix)]

    def add(self, name: bytes | str, value: bytes | str) -> None:
        """Add a field behind those that are there.

        Raises ValueError for a name that is no token, and for a value that holds a control.
        """
        self.extend(((_name_of(name), _value_of(value)),))

    def set(self, name: bytes | str, value: bytes | str) -> None:
        """Have one field of that name: where the first of them is, or else behind the others.

        Raises ValueError as `add` does.
        """
        places = self._places_of(name)
        if not places:
            self.add(name, value)
            return
        self.lines[places[0]] = _name_of(name) + b": " + _value_of(value)
        self._drop(places[1:])

    def remove(self, name: bytes | str) -> None:
        """Remove all fields of that name, if there are any."""
        self._drop(self._places_of(name))

    def copy(self) -> Headers:
        """The same fields in an object of their own."""
        return Headers(self)

    def __contains__(self, name: bytes | str) -> bool:
        return self.get(name) is not None

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Field]:
        """The fields as they are now: a change on the way through them is not seen."""
        return iter(self._pairs())

    def __eq__(self, other: object) -> bool:
        """Order, letter case and repeats are part of a message, so they count here."""
        if isinstance(other, Headers):
            return self.lines == other.lines
        if isinstance(other, (list, tuple)):
            return self._pairs() == list(other)
        return NotImplemented

    def __repr__(self) -> str:
        return f"Headers({self._pairs()!r})"

    # What follows is for those who know the kinds of fields, and write lines themselves.

    def extend(self, fields: Iterable[Field]) -> None:
        """Add several fields, of bytes and without blanks around their values.

        Raises ValueError for a name that is no token, and for a value that could end its line.
        """
        kinds = 0
        lines: list[bytes] = []
        for name, value in fields:
            kinds |= kinds_of(name)
            lines.append(name + b": " + value)
        if kinds & INVALID:
            raise ValueError(f"Illegal header name in {[line[:_SHOWN] for line in lines]!r}")
        self.extend_lines(lines, kinds)

    def extend_lines(self, lines: list[bytes], kinds: int) -> None:
        """Add fields as lines, with the OR of the kinds of their names.

        Raises ValueError for a line that could end before its end.
        """
        _check_no_line_ends(b"".join(lines))
        self.lines += lines
        if kinds:
            self.kinds |= kinds
            self._marks = None
            if kinds & HOST:
                self._learn()

    def put_host(self, host: bytes) -> None:
        """Put Host in front of the fields.

        Raises ValueError as `extend_lines` does.
        """
        _check_no_line_ends(host)
        self.lines.insert(0, b"Host: " + host)
        self._marks = None
        if len(self.lines) > 1 and self.lines[1][:5].lower() == b"host:":
            self._learn()  # one that was in front until now

    def without(self, ending: int, names: AbstractSet[bytes] = _NOTHING) -> Headers:
        """A copy without the fields of the kinds ``ending``, and those whose `key_of` is named."""
        kept = Headers(self)
        lines = kept.lines
        if names:
            kept._drop(
                [at for at, line in enumerate(lines) if key_of(line.partition(b":")[0]) in names]
            )
        marks: Marks = []
        seen = dropped = 0
        for index, kinds in kept._marks_found():
            place = index - dropped
            if kinds & ending:
                del lines[place]
                dropped += 1
            else:
                marks.append((place, kinds))
                if place or not kinds & HOST:
                    seen |= kinds
        kept.kinds = seen
        kept._marks = marks
        return kept

    def rewrite(self, kinds: int, value: bytes) -> None:
        """Give all fields of one of these kinds another value, without blanks around it.

        Raises ValueError as `extend_lines` does.
        """
        _check_no_line_ends(value)
        for place, found in self._marks_found():
            if found & kinds:
                self.lines[place] = self.lines[place].partition(b":")[0] + b": " + value

    def _marks_found(self) -> Marks:
        if self._marks is None:
            self._learn()
        assert self._marks is not None
        return self._marks

    def _learn(self) -> None:
        """Find out what the names of the fields say."""
        marks: Marks = []
        seen = 0
        for place, line in enumerate(self.lines):
            kinds = kinds_of(line.partition(b":")[0])
            if kinds:
                marks.append((place, kinds))
                if place or not kinds & HOST:
                    seen |= kinds
        self.kinds = seen
        self._marks = marks

    def _pairs(self) -> list[Field]:
        pairs: list[Field] = []
        for line in self.lines:
            name, _, value = line.partition(b": ")
            pairs.append((name, value))
        return pairs

    def _places_of(self, name: bytes | str) -> list[int]:
        """The indices of the fields of that name."""
        key = _lower(name)
        size = len(key)
        return [
            place
            for place, line in enumerate(self.lines)
            if line[:size].lower() == key and line[size : size + 1] == b":"
        ]

    def _drop(self, places: list[int]) -> None:
        """Remove the fields with these indices, which are in order."""
        for place in reversed(places):
            del self.lines[place]
        if places:
            self._learn()


def headers_read(lines: list[bytes], marks: Marks, kinds: int) -> Headers:
    """The fields of lines that have been checked, and what their names say."""
    headers = Headers()
    headers.is_fresh = True
    headers.lines = lines
    headers._marks = marks
    headers.kinds = kinds
    return headers


def own_headers(fields: Iterable[tuple[bytes | str, bytes | str]]) -> Headers:
    """The fields for a message that is made with these: a copy, unless nobody else has them.

    Raises ValueError as `Headers.add` does.
    """
    if isinstance(fields, Headers) and fields.is_fresh:
        fields.is_fresh = False
        return fields
    return Headers(fields)


def _lower(name: bytes | str) -> bytes:
    """The name as names are compared; with a colon in it, it is the name of nothing."""
    raw = name.encode("latin-1", "replace") if isinstance(name, str) else name
    return b"" if b":" in raw else raw.lower()


def _name_of(name: bytes | str) -> bytes:
    raw = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if kinds_of(raw) & INVALID:
        raise ValueError(f"Illegal header name {name[:_SHOWN]!r}: it is no token")
    return raw


def _value_of(value: bytes | str) -> bytes:
    try:
        raw = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ValueError(f"Illegal header value {value[:_SHOWN]!r}: it is not Latin-1") from None
    if raw.translate(None, TEXT):
        raise ValueError(f"Illegal header value {value[:_SHOWN]!r}: there is a control in it")
    return raw.strip(_BLANKS)


def _check_no_line_ends(text: bytes) -> None:
    """Refuse NUL, and what is an end of a line to somebody: h11 refuses these as well."""
    if 0 in text or 10 in text or 11 in text or 12 in text or 13 in text:
        raise ValueError(f"Illegal header value in {text[:_SHOWN]!r}: a line would end in it")
