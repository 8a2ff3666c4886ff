"""Which failures are which condition of a retry, and which requests may be sent twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.policy.retry import IDEMPOTENT_METHODS, RetryRules, condition_of, was_sent
from trio_proxy.settings import RETRY_CONDITIONS, Retry

CONDITIONS = {
    Reason.CONNECTION_REFUSED: "connect",
    Reason.CONNECTION_FAILED: "connect",
    Reason.CONNECT_TIMEOUT: "connect",
    Reason.DNS_ERROR: "connect",
    Reason.CONNECTION_RESET: "reset",
    Reason.READ_TIMEOUT: "timeout",
    Reason.WRITE_TIMEOUT: "timeout",
    Reason.TRY_TIMEOUT: "timeout",
}

methods = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=1, max_size=12).map(str.encode)


def failure(reason: Reason, phase: Phase = Phase.AWAIT_HEAD) -> ProxyError:
    return ProxyError(Source.UPSTREAM, phase, reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_the_condition_of_every_failure(reason: Reason) -> None:
    """Named as in the configuration; what is the client's, ours or final has none."""
    assert condition_of(failure(reason)) == CONDITIONS.get(reason, "")


def test_every_condition_can_be_configured() -> None:
    """And the others that can are statuses."""
    kinds = set(CONDITIONS.values())
    assert kinds < set(RETRY_CONDITIONS)
    assert all(each.isdigit() for each in set(RETRY_CONDITIONS) - kinds)
    assert set(Retry().on) == kinds


@pytest.mark.parametrize("reason", list(CONDITIONS))
@pytest.mark.parametrize("phase", list(Phase))
def test_nothing_was_sent_before_there_was_a_connection(reason: Reason, phase: Phase) -> None:
    """Whatever ended the connecting, a try deadline too; after it anything may have been sent."""
    assert was_sent(failure(reason, phase)) == (phase is not Phase.CONNECT)


@given(methods | st.sampled_from(sorted(IDEMPOTENT_METHODS)))
def test_methods_of_which_a_repetition_does_no_harm(method: bytes) -> None:
    """Those of RFC 9110 §9.2.2, in capitals, and no other that we do not know."""
    known = {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"}
    assert RetryRules().is_replayable(method) == (method in known)
    assert not RetryRules().is_replayable(method.lower())


@given(methods)
def test_with_unsafe_methods_every_method_is_replayable(method: bytes) -> None:
    """nginx's ``non_idempotent``."""
    assert RetryRules(unsafe_methods=True).is_replayable(method)


def test_without_rules_there_is_one_try() -> None:
    """A pool that was told nothing retries nothing and keeps nothing."""
    rules = RetryRules()
    assert (rules.attempts, set(rules.on), rules.replay_bytes) == (1, set(), 0)
