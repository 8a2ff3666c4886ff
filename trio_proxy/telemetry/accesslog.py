"""One finished exchange as one line.

The line carries what an operator asks first when something failed: which upstream, in which phase,
why, and what every try came to. Values come from the network and are escaped as nginx does it
(``log_format … escape=default``): ``"``, ``\\``, control and non-ASCII bytes become ``\\xNN``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from trio_proxy.telemetry.lines import LogFormat, json_text, json_time, text_time, to_json

if TYPE_CHECKING:
    from trio_proxy.exchange.exchange import Exchange
    from trio_proxy.http.errors import ProxyError

ACCESS_LOGGER = "trio_proxy.access"

_UNSAFE_IN_QUOTES = re.compile(r"[^ !#-\[\]-~]")
_UNSAFE_IN_WORD = re.compile(r"[^!#-\[\]-~]")
#: A comma or colon in a try's outcome would read as the next try; an address may have colons.
_UNSAFE_IN_OUTCOME = re.compile(r"[^!#-+\--9;-\[\]-~]")

#: What every word may hold, and what `_text` itself adds to its words: if a line without the first
#: is more than the second, something in it has to be escaped. One pass in C instead of one a word.
_SAFE_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"\\')
_BETWEEN_WORDS = b' "  "        '


def format_access(exchange: Exchange, style: LogFormat) -> str:
    """The whole line without its line end. Its time is the moment the exchange ended."""
    if style is LogFormat.JSON:
        return to_json(access_fields(exchange))
    return f"{text_time(ended_wall(exchange))} - trio_proxy.access - INFO - {access_text(exchange)}"


def ended_wall(exchange: Exchange) -> float:
    """Seconds since the epoch; measured by the loop's clock, so a stepped wall clock is no harm."""
    return exchange.started_wall + (exchange.ended_at - exchange.started_at)


def access_text(exchange: Exchange) -> str:
    """The message of the line: the request and its outcome, then ``key=value`` pairs."""
    client = exchange.client_ip or exchange.peer or "-"
    request = f"{exchange.method} {exchange.target} {_protocol(exchange.version)}"
    text = _text(exchange, client, request, exchange.upstream or "-", exchange.trace_id or "-")
    if not text.isascii() or text.encode().translate(None, _SAFE_BYTES) != _BETWEEN_WORDS:
        upstream, trace_id = _word(exchange.upstream), _word(exchange.trace_id)
        text = _text(exchange, _word(client), _quoted(request), upstream, trace_id)
    if exchange.error is None and len(exchange.tries) < 2 and not exchange.not_retried:
        return text
    return text + _tail(exchange, exchange.error)


def _text(exchange: Exchange, client: str, request: str, upstream: str, trace_id: str) -> str:
    status = str(exchange.status)
    tenths = int(_milliseconds(exchange) * 10 + 0.5)
    return (
        f'{client} "{request}" {status if len(status) > 2 else status.zfill(3)}'
        f" {exchange.body_bytes_sent}B {tenths // 10}.{tenths % 10}ms"
        f" upstream={upstream} trace_id={trace_id} in={exchange.bytes_received}B"
        f" tries={len(exchange.tries)} phase=" + exchange.ended_in
    )


def _tail(exchange: Exchange, error: ProxyError | None) -> str:
    """The pairs that only a failure or a second try has."""
    pairs = []
    if error is not None:
        pairs.append(f" error={error.reason.slug}")
        if error.detail:
            pairs.append(f' detail="{_quoted(error.detail)}"')
    if exchange.not_retried:
        pairs.append(f" not_retried={exchange.not_retried}")
    if exchange.tries:
        tried = ",".join(f"{_word(t.upstream)}:{_outcome(t.outcome)}" for t in exchange.tries)
        pairs.append(f" tried={tried}")
    return "".join(pairs)


def access_fields(exchange: Exchange) -> dict[str, Any]:
    """The same facts for JSON; ``error``, ``source`` and ``detail`` only where it failed."""
    fields: dict[str, Any] = {
        "time": json_time(ended_wall(exchange)),
        "logger": ACCESS_LOGGER,
        "level": "INFO",
        "client": json_text(exchange.client_ip or exchange.peer),
        "method": json_text(exchange.method),
        "target": json_text(exchange.target),
        "version": json_text(_protocol(exchange.version)),
        "status": exchange.status,
        "bytes_in": exchange.bytes_received,
        "bytes_out": exchange.bytes_sent,
        "body_bytes": exchange.body_bytes_sent,
        "duration_ms": round(_milliseconds(exchange), 3),
        "upstream": json_text(exchange.upstream) or None,
        "upstream_ms": _upstream_milliseconds(exchange),
        "tries": [
            {
                "upstream": json_text(one.upstream),
                "outcome": json_text(one.outcome),
                "ms": round(one.seconds * 1000, 3),
            }
            for one in exchange.tries
        ],
        "trace_id": json_text(exchange.trace_id),
        "phase": exchange.ended_in.value,
    }
    if exchange.not_retried:
        fields["not_retried"] = exchange.not_retried
    if (error := exchange.error) is not None:
        fields["error"] = error.reason.slug
        fields["source"] = error.source.value
        fields["detail"] = json_text(error.detail)
    return fields


def _milliseconds(exchange: Exchange) -> float:
    return (exchange.ended_at - exchange.started_at) * 1000


def _upstream_milliseconds(exchange: Exchange) -> float | None:
    seconds = exchange.tries[-1].head_seconds if exchange.tries else -1.0
    return None if seconds < 0 else round(seconds * 1000, 3)


def _protocol(version: str) -> str:
    """``1.1`` as ``HTTP/1.1``; what says more already is left alone."""
    if version == "1.1":
        return "HTTP/1.1"
    return f"HTTP/{version}" if version[:1].isdigit() else version


def _quoted(text: str) -> str:
    return _UNSAFE_IN_QUOTES.sub(_hex_escape, text)


def _word(text: str) -> str:
    return _UNSAFE_IN_WORD.sub(_hex_escape, text) if text else "-"


def _outcome(text: str) -> str:
    return _UNSAFE_IN_OUTCOME.sub(_hex_escape, text) if text else "-"


def _hex_escape(match: re.Match[str]) -> str:
    r"""``\xNN`` for each byte the character stands for.

    Bytes decoded as Latin-1, or by ``surrogateescape``, show as the bytes that came; anything else
    as its UTF-8.
    """
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return "".join(f"\\x{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
