"""The reason phrases of statuses (RFC 9110 §15)."""

from __future__ import annotations

from http import HTTPStatus

#: RFC 9110's names where the standard library's depend on its version.
_PHRASES = {413: "Content Too Large", 414: "URI Too Long"}


def phrase_of(status: int) -> str:
    """The phrase that belongs to a status, or to its class if it has none of its own."""
    try:
        return _PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return _OF_CLASS.get(status // 100, "")


_OF_CLASS = {1: "Information", 2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}
