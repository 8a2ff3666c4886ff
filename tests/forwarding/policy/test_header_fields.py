"""`Headers`: an ordered list of fields that nothing but fields can get into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.http.headers import Field, Headers
from trio_proxy.http.messages import NO_BODY, Request, ResponseHead
from trio_proxy.http.names import DATE, GRPC_TIMEOUT, HOP_BY_HOP, HOST, kinds_of

FIELDS: list[Field] = [
    (b"Host", b"example.com"),
    (b"Accept", b"*/*"),
    (b"X-A", b"1"),
    (b"x-a", b"2"),
    (b"Empty", b""),
]


def test_a_name_is_found_in_any_letter_case_and_given_as_bytes_or_str() -> None:
    """The first value, all of them in order, or what is asked for instead."""
    headers = Headers(FIELDS)
    assert (headers.get(b"x-A"), headers.get("X-a")) == (b"1", b"1")
    assert (headers.get_all(b"X-A"), headers.get_all("x-b")) == ([b"1", b"2"], [])
    assert (headers.get(b"X-B"), headers.get(b"X-B", b"-"), headers.get("X-B", 5)) == (
        None,
        b"-",
        5,
    )
    assert headers.get(b"empty", b"-") == b""
    assert b"ACCEPT" in headers
    assert "empty" in headers
    assert b"Acc" not in headers
    assert "Accept-Language" not in headers


@pytest.mark.parametrize("name", [b"", b"X-A: 1", b"X-A:", b"x:y", "X-\u20ac", b"\r\n"])
def test_what_is_no_name_is_the_name_of_no_field(name: bytes | str) -> None:
    """Asking for it, or removing it, does no harm."""
    headers = Headers([(b"X-A", b"1"), (b"X", b"y: z"), (b"X-_", b"")])
    before = list(headers)
    assert (headers.get(name), headers.get_all(name), name in headers) == (None, [], False)
    headers.remove(name)
    assert headers == before


def test_fields_come_out_as_they_went_in() -> None:
    """In order, with letter case and repeats, whatever their values look like."""
    fields = [*FIELDS, (b"Y", b": :"), (b"Z", b"a: b"), (b"~", b"\xe9\t\xff")]
    headers = Headers(fields)
    assert list(headers) == fields
    assert len(headers) == len(fields)
    assert headers == tuple(fields)
    assert headers == Headers(iter(fields))


def test_order_letter_case_and_repeats_tell_two_messages_apart() -> None:
    """They are part of what is written."""
    headers = Headers(FIELDS)
    assert headers != FIELDS[::-1]
    assert headers != [*FIELDS[:-1], (b"empty", b"")]
    assert headers != [*FIELDS, FIELDS[-1]]
    assert headers != dict(FIELDS)
    with pytest.raises(TypeError, match="unhashable"):
        hash(headers)


def test_its_repr_makes_it_again() -> None:
    """For a debugger, and for a test that fails."""
    text = "Headers([(b'Host', b'example.com'), (b'X-A', b'1')])"
    assert repr(Headers([FIELDS[0], FIELDS[2]])) == text
    assert repr(Headers()) == "Headers([])"


def test_a_str_is_latin_1_and_blanks_around_a_value_are_no_part_of_it() -> None:
    """RFC 9110 §5.5: nobody who reads a message would see those blanks."""
    headers = Headers([("X-A", "caf\xe9")])
    headers.add("X-B", " \t b c\t ")
    headers.set("X-C", " ")
    assert headers == [(b"X-A", b"caf\xe9"), (b"X-B", b"b c"), (b"X-C", b"")]


def test_a_field_that_is_set_stands_where_the_first_of_its_name_stood() -> None:
    """The others of that name are gone; one that was not there comes last."""
    headers = Headers([(b"A", b"1"), (b"b", b"2"), (b"C", b"3"), (b"B", b"4"), (b"B", b"5")])
    headers.set(b"B", b"6")
    headers.set("D", "7")
    assert headers == [(b"A", b"1"), (b"B", b"6"), (b"C", b"3"), (b"D", b"7")]
    headers.remove("b")
    headers.remove("E")
    assert headers == [(b"A", b"1"), (b"C", b"3"), (b"D", b"7")]


def test_a_copy_and_the_headers_of_a_message_are_its_own() -> None:
    """What two answers are made with is not what one of them adds to it."""
    shared = Headers(FIELDS)
    copy = shared.copy()
    heads = [ResponseHead(200, shared), ResponseHead(200, shared)]
    request = Request(b"GET", b"/", b"1.1", b"a", shared, body=NO_BODY, keep_alive=True)
    for each in (copy, heads[0].fields, request.fields):
        each.add(b"Set-Cookie", b"secret")
        each.remove(b"X-A")
    assert list(shared) == list(heads[1].fields) == FIELDS


def test_fields_may_be_changed_while_they_are_gone_through() -> None:
    """The way leads through those that were there."""
    headers = Headers(FIELDS)
    for name, _ in headers:
        headers.remove(name)
        headers.add(b"Z", name)
    assert headers == [(b"Z", name) for name, _ in FIELDS]


def test_cookies_are_found_in_all_cookie_fields() -> None:
    """Each name may be there several times, and another name may end or begin with it."""
    headers = Headers([(b"Cookie", b"a=1; b=2;a=3"), (b"cookie", b"xa=4; a=; a"), (b"a", b"a=5")])
    assert headers.cookies(b"a") == [b"1", b"3", b""]
    assert headers.cookies(b"A") == []
    assert Headers().cookies(b"a") == []


#: No tokens (RFC 9110 §5.6.2).
NO_NAMES = [
    *(b"", b" ", b"X ", b" X", b"X Y", b"X:", b"X: 1\r\nY", b"X\r\n", b"X\n", b"X\x00", b"X\t"),
    *(b"caf\xe9", b"X\x7f", b"(X)", b'"X"', "X:", "X\r\nY", "caf\xe9", "\u20ac"),
]
NO_VALUES = [
    *(bytes([code]) for code in (*range(9), *range(10, 32), 127)),
    *(b"1\r\nY: 2", b"1\rY", b"1\nY", b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b" \r\n ", b"\n"),
    *("1\r\nY: 2", "a\x00b", "\u20ac", "\u010a", "\u2028", "a\x0bb", "a\x0cb"),
]


def changes(name: bytes | str, value: bytes | str) -> list[Callable[[Headers], object]]:
    """Every way in for a field."""
    return [
        lambda headers: headers.add(name, value),
        lambda headers: headers.set(name, value),
        lambda headers: Headers([*headers, (name, value)]),
        lambda headers: ResponseHead(200, [(b"A", b"1"), (name, value)]),
        lambda headers: Request(
            b"GET", b"/", b"1.1", b"a", [(name, value)], body=NO_BODY, keep_alive=True
        ),
    ]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_whichever_way_it_is_added(name: bytes | str) -> None:
    """And nothing of it is left."""
    headers = Headers(FIELDS)
    for change in changes(name, b"1"):
        with pytest.raises(ValueError, match="Illegal header name"):
            change(headers)
    if isinstance(name, bytes):
        with pytest.raises(ValueError, match="Illegal header name"):
            headers.extend([(b"A", b"1"), (name, b"1")])
    assert headers == FIELDS


@pytest.mark.parametrize("value", NO_VALUES)
@pytest.mark.parametrize("name", [b"New", b"X-A"])
def test_what_could_end_a_line_is_refused_whichever_way_it_is_added(
    name: bytes, value: bytes | str
) -> None:
    """And nothing of it is left, nor is a field gone that it was to replace."""
    headers = Headers(FIELDS)
    for change in changes(name, value):
        with pytest.raises(ValueError, match="Illegal header value"):
            change(headers)
    assert headers == FIELDS


@pytest.mark.parametrize("value", [b"a\r\nX: 1", b"a\r", b"\n", b"\x00", b"a\x0bb", b"a\x0cb"])
def test_nor_does_what_the_proxy_writes_itself_end_a_line(value: bytes) -> None:
    """Its own fields come in as lines, with values that came from somewhere else."""
    headers = Headers([*FIELDS, (b"Grpc-Timeout", b"1S")])
    ways: list[Callable[[], object]] = [
        lambda: headers.extend([(b"A", b"1"), (b"B", value)]),
        lambda: headers.extend_lines([b"A: 1", b"B: " + value], 0),
        lambda: headers.put_host(value),
        lambda: headers.rewrite(GRPC_TIMEOUT, value),
    ]
    for way in ways:
        with pytest.raises(ValueError, match="Illegal header value"):
            way()
    assert headers == [*FIELDS, (b"Grpc-Timeout", b"1S")]


def test_an_error_shows_no_more_than_the_beginning_of_what_it_refuses() -> None:
    """Values can be long, and secret."""
    with pytest.raises(ValueError, match="Illegal header value") as caught:
        Headers().add(b"X", b"x" * 10_000 + b"\n")
    assert len(str(caught.value)) < 200


def test_a_second_host_is_noticed_wherever_it_comes_from() -> None:
    """One in front is where it belongs; any other has to be refused by who writes the message."""
    assert not Headers(FIELDS).kinds & HOST
    for headers in (Headers([*FIELDS, FIELDS[0]]), Headers(FIELDS[::-1]), Headers(FIELDS)):
        headers.put_host(b"other.example")
        assert headers.kinds & HOST


NAMES = st.sampled_from(
    [
        *(b"A", b"a", b"B", b"bb", b"Host", b"HOST", b"Date", b"date", b"Connection", b"TE"),
        *(b"X_Forwarded_For", b"Grpc-Timeout", b"grpc_timeout", b"Via", b"a-b", b"A_B"),
    ]
)
VALUES = st.sampled_from([b"", b"1", b"x: y", b"A: 1", b":", b"\t!", b"a  b", b"\xff", b"a=1; b"])
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "set", "remove", "extend", "copy", "without", "named", "put_host", "rewrite"]
        ),
        NAMES,
        VALUES,
    ),
    max_size=12,
)


def step(model: list[Field], how: str, name: bytes, value: bytes) -> list[Field]:
    """What a change makes of a list of pairs; values without the blanks around them."""
    bare = value.strip(b" \t")
    same = [at for at, (other, _) in enumerate(model) if other.lower() == name.lower()]
    if how == "add" or (how == "set" and not same):
        return [*model, (name, bare)]
    if how == "set":
        rest = [field for at, field in enumerate(model) if at not in same[1:]]
        return [*rest[: same[0]], (name, bare), *rest[same[0] + 1 :]]
    if how == "remove":
        return [field for at, field in enumerate(model) if at not in same]
    if how == "extend":
        return [*model, (name, bare), (b"Z", b"z")]
    if how == "without":
        return [field for field in model if not kinds_of(field[0]) & (HOP_BY_HOP | DATE)]
    if how == "named":
        key = name.lower().replace(b"_", b"-")
        return [field for field in model if field[0].lower().replace(b"_", b"-") != key]
    if how == "put_host":
        return [(b"Host", bare), *model]
    if how == "rewrite":
        return [(other, bare if kinds_of(other) & GRPC_TIMEOUT else old) for other, old in model]
    return model


def change(headers: Headers, how: str, name: bytes, value: bytes) -> Headers:
    """The same change of the real thing."""
    bare = value.strip(b" \t")
    if how in ("add", "set"):
        getattr(headers, how)(name, value)
    elif how == "remove":
        headers.remove(name)
    elif how == "extend":
        headers.extend([(name, bare), (b"Z", b"z")])
    elif how == "put_host":
        headers.put_host(bare)
    elif how == "rewrite":
        headers.rewrite(GRPC_TIMEOUT, bare)
    elif how == "without":
        return headers.without(HOP_BY_HOP | DATE)
    elif how == "named":
        return headers.without(0, {name.lower().replace(b"_", b"-")})
    else:
        return headers.copy()
    return headers


def kinds_in(model: list[Field]) -> int:
    """What the names say, but for a Host in front."""
    found = 0
    for at, (name, _) in enumerate(model):
        if at or name.lower() != b"host":
            found |= kinds_of(name)
    return found


@settings(max_examples=500, deadline=None)
@given(PAIRS, STEPS)
def test_whatever_is_done_to_it_it_is_a_list_of_pairs(
    pairs: list[Field], steps: list[tuple[str, bytes, bytes]]
) -> None:
    """Fields, look-ups and what is known of the names agree with a plain list after each step."""
    headers, model = Headers(pairs), [(name, value.strip(b" \t")) for name, value in pairs]
    for how, name, value in [("copy", b"A", b""), *steps]:
        before, old_model = headers, model
        headers, model = change(headers, how, name, value), step(model, how, name, value)
        assert list(headers) == model
        assert headers == model
        assert headers == Headers(model)
        assert len(headers) == len(model)
        assert headers.lines == [b"%b: %b" % field for field in model]
        assert headers.kinds == kinds_in(model)
        values = [mine for other, mine in model if other.lower() == name.lower()]
        assert headers.get_all(name) == values
        assert headers.get(name) == (values[0] if values else None)
        assert (name in headers) is bool(values)
        if before is not headers:
            assert before == old_model


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_bytes_are_one_field_or_refused(name: bytes, value: bytes) -> None:
    """Nobody gets a second line, or another name, out of what is added."""
    headers = Headers([(b"A", b"1")])
    try:
        headers.add(name, value)
    except ValueError:
        assert headers == [(b"A", b"1")]
        return
    written = b"\r\n".join(headers.lines)
    assert written.split(b"\r\n") == [b"A: 1", name + b": " + value.strip(b" \t")]
    assert len(written.splitlines()) == 2
    assert list(headers)[1] == (name, value.strip(b" \t"))
