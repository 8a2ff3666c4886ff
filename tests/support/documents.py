"""What is written about the proxy, taken apart, so that it can be held against what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product

from prometheus_client.parser import text_string_to_metric_families

from support.processes import ROOT
from trio_proxy.telemetry.metrics import WorkersCollector, registry_of, render

#: What differs from run to run: what is left out, durations and sizes, how a socket fails.
_CHANGING = re.compile(
    r"( … |\d+\.\d+ms|\d+B\b|[\d.]+ (?:ms|s|bytes)\b|/etc/trio-proxy\.toml|\(\w+Error: .*?\))"
)

#: How the page shows a line of the log: without date and logger.
SHOWN_LINE = re.compile(r"\d\d:\d\d:\d\d - (INFO|WARNING) - (.*)")


class Document:
    """A Markdown page."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / name).read_text()

    def section(self, title: str) -> str:
        """The text under a heading, up to the next one of whichever level."""
        found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", self._hidden(), re.M | re.S)
        assert found is not None, title
        return self.text[found.start(1) : found.end(1)]

    def _hidden(self) -> str:
        """The text with its code blanked, in which ``#`` begins a comment and no heading."""
        return re.sub(
            r"^```.*?^```$", lambda m: re.sub(r"[^\n]", " ", m[0]), self.text, flags=re.M | re.S
        )


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def metric_labels() -> dict[str, set[str]]:
    """Every sample, and every histogram, with the names of its labels."""
    collector = WorkersCollector()
    stats = collector.stats
    upstream = stats.upstream("default", "127.0.0.1:9001")
    upstream.breaker = "closed"
    stats.queue_length["default"] = 0
    stats.retried("503")
    body, _ = render(registry_of(collector), "text/plain")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            if family.type == "histogram":
                labels.setdefault(family.name, set()).update(set(sample.labels) - {"le"})
    return labels


def line_pattern(shown: str) -> str:
    """What matches the real line of one that a page shows shortened."""
    level, message = SHOWN_LINE.fullmatch(shown).groups()  # type: ignore[union-attr]
    parts = []
    for index, part in enumerate(_CHANGING.split(message)):
        if index % 2 == 0:
            parts.append(re.escape(part))
        elif part == " … ":
            parts.append(r" trace_id=\S+ in=\d+B ")
        elif part.startswith("/"):
            parts.append(r"\S+")
        elif part.startswith("("):
            parts.append(r"\(.+\)")
        else:
            parts.append(r"[\d.]+" + re.escape(part.lstrip("0123456789.")))
    return rf" - trio_proxy\.\w+ - {level} - {''.join(parts)}$"


def message_patterns() -> list[re.Pattern[str]]:
    """What matches the messages that the package can log, by the calls in its source."""
    return [
        re.compile(pattern)
        for path in sorted((ROOT / "trio_proxy").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("info", "warning", "warn", "error")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        for pattern in _patterns(node.args[0].value, list(_arguments(node.args[1:])))
    ]


def _arguments(nodes: list[ast.expr]) -> Iterator[ast.expr]:
    for node in nodes:
        if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple):
            yield from node.value.elts
        else:
            yield node


def _patterns(template: str, arguments: list[ast.expr]) -> Iterator[str]:
    """One for each choice between constants among the arguments."""
    literals = [re.escape(each) for each in re.split(r"%[a-z]", template)]
    texts = [_texts(node) for node in arguments]
    texts += [[".+"]] * (len(literals) - 1 - len(texts))
    for chosen in product(*texts):
        yield literals[0] + "".join(a + b for a, b in zip(chosen, literals[1:], strict=False))


def _texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [re.escape(node.value)]
    return [".+"]
