"""What the name of a field means, and how much of what clients send is remembered."""

from __future__ import annotations

import pytest

from trio_proxy.http import names
from trio_proxy.http.names import KINDS, MAX_NAME_BYTES, MAX_NAMES, kinds_of


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        (b"Accept", 0),
        (b"HOST", names.HOST | names.REWRITTEN),
        (b"connection", names.CONNECTION | names.HOP_BY_HOP),
        (b"Content-Length", names.CONTENT_LENGTH | names.HOP_BY_HOP),
        (b"Content_Length", names.HOP_BY_HOP),
        (b"Transfer-Encoding", names.TRANSFER_ENCODING | names.HOP_BY_HOP),
        (b"transfer_encoding", names.HOP_BY_HOP),
        (b"X_Real_IP", names.REWRITTEN),
        (b"x-forwarded-for", names.REWRITTEN),
        (b"X-Forwarded_Port", names.FORWARDING),
        (b"Forwarded", names.FORWARDING),
        (b"X-Trace_Id", names.TRACE_ID),
        (b"Date", names.DATE),
        (b"Da_te", 0),
        (b"Via", names.VIA),
        (b"", names.INVALID),
        (b"a b", names.INVALID),
        (b"Host ", names.INVALID),
        (b"a\r\nHost", names.INVALID),
        (b"caf\xe9", names.INVALID),
        (b"x" * 5000, 0),
        (b"X-Forwarded-" + b"x" * 5000, names.FORWARDING),
    ],
)
def test_what_frames_is_known_by_its_exact_name_and_the_rest_as_cgi_would(
    name: bytes, kinds: int
) -> None:
    """A second look finds the same, whether or not the name is remembered."""
    assert (kinds_of(name), kinds_of(name)) == (kinds, kinds)


def test_the_names_that_are_remembered_are_bounded_in_number_and_length() -> None:
    """Whatever a client sends, and without a way to keep the names of others out for good."""
    for number in range(3 * MAX_NAMES):
        assert kinds_of(b"X-%d" % number) == 0
        assert len(KINDS) <= MAX_NAMES
    assert kinds_of(b"Cookie") == 0
    assert b"Cookie" in KINDS


def test_what_is_no_name_or_a_very_long_one_is_not_remembered() -> None:
    """The table holds names that clients use, not what they attack with."""
    for name in (b"a b", b"", b"x" * (MAX_NAME_BYTES + 1)):
        kinds_of(name)
        assert name not in KINDS
    kinds_of(b"y" * MAX_NAME_BYTES)
    assert b"y" * MAX_NAME_BYTES in KINDS
