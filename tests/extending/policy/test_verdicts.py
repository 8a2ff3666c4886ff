"""Rows of the status table: what one may say, so that it can be said anywhere."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from trio_proxy import Phase, ProxyError, Reason, Source, Verdict

UNAUTHORIZED = Verdict(401, "http_request_denied", "no valid API key", slug="unauthorized")


def test_a_row_of_ones_own_is_told_as_those_of_the_proxy() -> None:
    error = ProxyError(Source.CLIENT, Phase.ROUTE, UNAUTHORIZED, detail="x")
    assert error.status == 401
    assert str(error) == "unauthorized (client, route): x"
    assert isinstance(Reason.LOOP, Verdict)


def test_the_proxys_own_are_named_by_their_slug_and_outlive_a_pickle() -> None:
    """Counters by reason go from worker to supervisor."""
    for reason in Reason:
        assert Reason[reason.slug.upper()] is reason
        assert pickle.loads(pickle.dumps(reason)) is reason
    assert len({reason.slug for reason in Reason}) == len(Reason)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"status": 200}, "from 400 to 599"),
        ({"status": 600}, "from 400 to 599"),
        ({"error_type": "no such; thing"}, "RFC 9209"),
        ({"error_type": ""}, "RFC 9209"),
        ({"text": "two\r\nlines"}, "one line"),
        ({"slug": "two words"}, "a word"),
        ({"slug": 'a="'}, "a word"),
    ],
)
def test_what_would_not_fit_into_an_answer_or_a_log_line_is_refused(
    wrong: dict[str, Any], why: str
) -> None:
    fitting = {"status": 401, "error_type": "http_request_denied", "text": "no", "slug": "no"}
    with pytest.raises(ValueError, match=why):
        Verdict(**{**fitting, **wrong})


@pytest.mark.parametrize(
    "field",
    [
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("bad name", "x"),
        ("X", "a\r\nY: b"),
    ],
)
def test_fields_that_would_break_the_answer_are_refused_where_they_are_given(
    field: tuple[str, str],
) -> None:
    with pytest.raises(ValueError, match=r"frames a message|Illegal header"):
        ProxyError(Source.CLIENT, Phase.ROUTE, UNAUTHORIZED, fields=[field])
