"""Backoff: the delay before a retry, and what Retry-After asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.backoff import (
    BASE_SECONDS,
    CAP_SECONDS,
    LONGEST_RETRY_AFTER,
    full_jitter,
    retry_after_seconds,
)

RANDOM = st.floats(0, 1, exclude_max=True)

#: 1994-11-06 08:49:37, the moment of the examples in RFC 9110 §5.6.7.
EXAMPLE_AT = 784111777.0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**30), RANDOM)
def test_a_delay_lies_between_nothing_and_the_cap(attempt: int, random: float) -> None:
    """However many attempts there were."""
    delay = full_jitter(attempt, random)
    assert 0 <= delay < CAP_SECONDS
    if attempt == 0:
        assert delay < BASE_SECONDS


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20), RANDOM)
def test_the_range_of_delays_doubles_up_to_the_cap(attempt: int, random: float) -> None:
    """The same random number gives twice the delay, as long as the cap allows."""
    doubled = min(2 * full_jitter(attempt, random), random * CAP_SECONDS)
    assert full_jitter(attempt + 1, random) == pytest.approx(doubled)


def test_delays_are_the_share_of_their_range_that_the_random_number_says() -> None:
    """25, 50, 100, 200 and then 250 milliseconds are the ranges."""
    halves = [full_jitter(attempt, 0.5) for attempt in range(6)]
    assert halves == pytest.approx([0.0125, 0.025, 0.05, 0.1, 0.125, 0.125])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=64)
    | st.from_regex(rb"[0-9]{1,400}", fullmatch=True)
    | st.from_regex(
        rb"(Sun|Sunday)?,? ?[0-9 ]{0,3}[- ]?(Nov|[0-9]{1,2})[- ]"
        rb"[0-9]{0,5} [0-9:]{0,9} ?(GMT|[0-9]{4})?"
    ),
    st.floats(-1e12, 1e12),
)
def test_any_bytes_give_a_delay_or_none(value: bytes, wall_now: float) -> None:
    """Never an error, never a negative or endless wait."""
    seconds = retry_after_seconds(value, wall_now)
    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31), timezones=st.just(UTC)),
    st.floats(-1e6, 1e6),
)
def test_all_three_forms_of_a_date_ask_for_the_time_until_then(
    date: datetime, until: float
) -> None:
    """To the second, and none for a date in the past."""
    date = date.replace(microsecond=0)
    wall_now = date.timestamp() - until
    forms = (
        format_datetime(date, usegmt=True),
        date.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        date.ctime(),
    )
    for form in forms:
        seconds = retry_after_seconds(form.encode(), wall_now)
        assert seconds == pytest.approx(max(0.0, until), abs=1e-3)


@pytest.mark.parametrize(
    "value",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
    ],
)
def test_the_dates_of_the_rfc_are_understood(value: bytes) -> None:
    """One moment, three ways to write it."""
    assert retry_after_seconds(value, EXAMPLE_AT - 30) == 30.0
    assert retry_after_seconds(value, EXAMPLE_AT + 30) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b" 120\t", 120.0),
        (b"00120", 120.0),
        (b"4294967296", LONGEST_RETRY_AFTER),
        (b"9" * 10_000, LONGEST_RETRY_AFTER),
    ],
)
def test_a_number_asks_for_that_many_seconds(value: bytes, seconds: float) -> None:
    """A number that is too large to mean anything is taken down to the longest delay."""
    assert retry_after_seconds(value, EXAMPLE_AT) == seconds


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"1.5",
        b"1e3",
        b"1_000",
        b"inf",
        b"nan",
        b"soon",
        b"120 seconds",
        b"120, 60",
        "١٢".encode(),
        b"\xb2",
        b"Sun, 31 Feb 2027 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT\x00",
    ],
)
def test_a_malformed_value_is_no_wish(value: bytes) -> None:
    """Neither a number of seconds nor a date."""
    assert retry_after_seconds(value, EXAMPLE_AT) is None
