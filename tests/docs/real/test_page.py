"""What the page "When upstreams fail" shows is what there is."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.documents import SHOWN_LINE, Document, blocks, message_patterns, metric_labels
from support.redis_server import need_coredis
from trio_proxy.exchange.exchange import STALE, Exchange, Try
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.policy.breaker import State
from trio_proxy.settings import RETRY_CONDITIONS
from trio_proxy.settings.load.toml import parse
from trio_proxy.telemetry.accesslog import access_text
from trio_proxy.telemetry.stats import OBSTACLES, TIMEOUT_TYPES, UPSTREAM_ERROR_TYPES

PAGE = Document("docs/when-upstreams-fail.md")
SERVER = '[[upstreams]]\nhost = "127.0.0.1"\nport = 9001\n'

SLUGS = {reason.slug for reason in Reason}
#: What labels with a closed set of values can say.
LABEL_VALUES = {
    "state": {*State, "active", "idle"},
    "result": {"pass", "fail"},
    "pool": {"default"},
    "type": {*UPSTREAM_ERROR_TYPES, *TIMEOUT_TYPES.values()},
    "reason": {*SLUGS, *RETRY_CONDITIONS, *OBSTACLES},
}


def lines_of_log() -> list[str]:
    lines = "".join(blocks("text", PAGE.text)).splitlines()
    return [line for line in lines if SHOWN_LINE.fullmatch(line)]


def lines_of_metrics() -> list[str]:
    lines = "".join(blocks("text", PAGE.text)).splitlines()
    return [line for line in lines if line.startswith("proxy_")]


def messages(*, of_access: bool) -> list[str]:
    found = [SHOWN_LINE.fullmatch(line)[2] for line in lines_of_log()]  # type: ignore[index]
    return [each for each in found if (' HTTP/1.1" ' in each) == of_access]


@pytest.mark.parametrize("text", blocks("toml", PAGE.text))
def test_each_configuration_passes_check(text: str) -> None:
    """By itself, or below a server."""
    if "redis://" in text:
        need_coredis()
    parse(text if "[[upstreams]]" in text else SERVER + text, source="the page")


def test_each_message_is_one_that_can_be_logged() -> None:
    """Word for word, but for names and numbers."""
    patterns = message_patterns()
    assert len(messages(of_access=False)) > 20
    for message in messages(of_access=False):
        assert any(pattern.fullmatch(message) for pattern in patterns), message


def full_access_line() -> str:
    """One with every key that there is."""
    exchange = Exchange(started_at=0.0, started_wall=0.0, peer="127.0.0.1")
    exchange.not_retried = "budget"
    exchange.tries = [Try("a"), Try("b")]
    exchange.error = ProxyError(Source.PROXY, Phase.PICK, Reason.QUEUE_FULL, detail="why")
    return access_text(exchange)


def test_the_keys_of_access_lines_are_there() -> None:
    """In the lines that are shown, and those that the text names."""
    known = set(re.findall(r" (\w+)=", full_access_line()))
    shown = messages(of_access=True)
    assert len(shown) > 15
    named = re.findall(r"`(\w+)=[\w…:]*`", PAGE.text)
    assert {"tries", "tried", "not_retried", "error", "phase"} <= set(named) <= known
    for line in shown:
        assert set(re.findall(r" (\w+)=", line)) <= known, line


def test_the_values_of_access_lines_are_there() -> None:
    """Reasons, phases, outcomes of tries, and why there was no other try."""
    text = "\n".join([*messages(of_access=True), *re.findall(r"`(\w+=[^`]*)`", PAGE.text)])
    table = re.findall(r"^\| `(\w+)` \|", PAGE.section("Retries"), re.MULTILINE)
    assert sorted(table) == sorted(OBSTACLES)
    assert set(re.findall(r"\bnot_retried=(\w+)", text)) <= set(OBSTACLES)
    assert set(re.findall(r"\berror=(\w+)", text)) <= SLUGS
    assert set(re.findall(r"\bphase=(\w+)", text)) <= set(Phase)
    tried = ",".join(re.findall(r"\btried=(\S+)", text)).split(",")
    for outcome in {one.rpartition(":")[2] for one in tried if ":" in one}:
        assert outcome.isdigit() or outcome in {*SLUGS, STALE}


def test_the_conditions_of_retries_are_those_of_the_code() -> None:
    """Each key of the table, and each failure that it is said to stand for."""
    rows = re.findall(
        r'^\| ((?:"?`"\w+"`,? ?)+) \| (.*) \|$', PAGE.section("Retries"), re.MULTILINE
    )
    named = [word for keys, _ in rows for word in re.findall(r'"(\w+)"', keys)]
    assert sorted(named) == sorted(RETRY_CONDITIONS)
    for _, meaning in rows:
        assert set(re.findall(r"`(\w+)`", meaning)) <= SLUGS


def test_the_metrics_are_there() -> None:
    """Each by its name, with its labels, and with values that they can have."""
    known = metric_labels()
    named = set(re.findall(r"\bproxy_(?!next_upstream)\w+", PAGE.text))
    assert len(named) > 10
    assert named <= set(known)
    assert lines_of_metrics()
    for family in text_string_to_metric_families("\n".join(lines_of_metrics()) + "\n"):
        for sample in family.samples:
            assert set(sample.labels) == known[sample.name]
            for label, value in sample.labels.items():
                assert value in LABEL_VALUES.get(label, {value}), sample


def test_its_links_lead_somewhere() -> None:
    """Each to a heading of the page."""
    headings = re.findall(r"^##+ (.*)$", PAGE.text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
    links = re.findall(r"\]\(#([^)]*)\)", PAGE.text)
    assert links
    assert set(links) <= anchors
