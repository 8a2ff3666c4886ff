"""How the last try of a failed exchange has ended, which it cannot always say itself."""

from __future__ import annotations

from trio_proxy.exchange.exchange import Exchange, Try
from trio_proxy.http.errors import ProxyError, Source


def close_the_case(exchange: Exchange) -> None:
    """Note how the last try has ended, and let go of the frames that the errors hold on to.

    They hold the exchange in turn, which would have to wait for the cycle collector.
    """
    error = exchange.error
    if exchange.tries and error is not None:
        _blame_last_try(exchange.tries[-1], error)
    for failure in (error, *(one.failure for one in exchange.tries)):
        if failure is not None:
            failure.__traceback__ = failure.__cause__ = failure.__context__ = None


def _blame_last_try(last: Try, error: ProxyError) -> None:
    """Deadlines and departures cancel a try from outside, so it cannot say itself how it ended."""
    if last.failure is not None:
        return  # it has said so, and the exchange has failed later
    if error.source is Source.UPSTREAM:
        last.failure = error
    if last.failure is not None or last.outcome == "unfinished":
        last.outcome = error.reason.slug
