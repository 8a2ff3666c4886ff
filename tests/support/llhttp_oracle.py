"""What Node's parser (llhttp, strict) makes of bytes: a reader that is not ours.

Proxies are attacked where two readers disagree, so a second one must understand exactly what the
first one meant.
"""

from __future__ import annotations

from typing import Any

import httptools
from attrs import define, field

from trio_proxy.http.messages import Field

#: The methods that llhttp is asked about; it knows a fixed list and refuses all others.
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PURGE")


@define
class Parsed:
    """One message as llhttp saw it; ``start`` is the method or the status."""

    start: bytes | int = b""
    target: bytes = b""
    version: bytes = b""
    fields: list[Field] = field(factory=list)
    trailers: list[Field] = field(factory=list)
    body: bytes = b""
    has_head: bool = False
    complete: bool = False


class _Recorder:
    """Receives the callbacks of one parser."""

    parser: Any

    def __init__(self, messages: list[Parsed]) -> None:
        self._messages = messages

    def on_message_begin(self) -> None:
        self._messages.append(Parsed())

    def on_url(self, url: bytes) -> None:
        self._messages[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        message = self._messages[-1]
        (message.trailers if message.has_head else message.fields).append((name, value))

    def on_headers_complete(self) -> None:
        message, parser = self._messages[-1], self.parser
        message.has_head = True
        message.version = parser.get_http_version().encode()
        is_request = isinstance(parser, httptools.HttpRequestParser)
        message.start = parser.get_method() if is_request else parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._messages[-1].body += body

    def on_message_complete(self) -> None:
        self._messages[-1].complete = True


def _parse(kind: type[Any], data: bytes) -> list[Parsed]:
    messages: list[Parsed] = []
    while data:
        recorder = _Recorder(messages)
        recorder.parser = kind(recorder)
        try:
            recorder.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            # It stops where another protocol may begin; here everything is HTTP.
            data = data[exc.args[0] :]
        else:
            break
    return messages


def parse_requests(data: bytes) -> list[Parsed]:
    """Raises `httptools.HttpParserError` for what llhttp refuses."""
    return _parse(httptools.HttpRequestParser, data)


def parse_responses(data: bytes) -> list[Parsed]:
    """Raises `httptools.HttpParserError` for what llhttp refuses."""
    return _parse(httptools.HttpResponseParser, data)
