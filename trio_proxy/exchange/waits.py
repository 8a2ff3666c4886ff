"""The kinds of waits in an exchange: what each budget is called, and whose fault it is."""

from __future__ import annotations

import enum

from trio_proxy.http.errors import Reason, Source

_VERDICTS = {
    "head": (Reason.HEAD_TIMEOUT, Source.CLIENT),
    "body": (Reason.BODY_TIMEOUT, Source.CLIENT),
    "client_write": (Reason.CLIENT_STALLED, Source.CLIENT),
    "queue": (Reason.QUEUE_TIMEOUT, Source.PROXY),
    "connect": (Reason.CONNECT_TIMEOUT, Source.UPSTREAM),
    "write": (Reason.WRITE_TIMEOUT, Source.UPSTREAM),
    "read": (Reason.READ_TIMEOUT, Source.UPSTREAM),
}


class Wait(enum.Enum):
    """What is waited for: which budget that has, and whose fault it is when it runs out.

    The value is the name of the budget, as in the settings and in errors.
    """

    #: Bytes of a request's head.
    HEAD = "head"
    #: Bytes of a request's body.
    BODY = "body"
    #: The client to take bytes.
    CLIENT_WRITE = "client_write"
    #: An upstream connection to come free.
    QUEUE = "queue"
    #: A connection to an upstream.
    CONNECT = "connect"
    #: The upstream to take bytes.
    WRITE = "write"
    #: Bytes of the upstream's.
    READ = "read"

    key: str
    index: int
    reason: Reason
    source: Source
    is_of_try: bool

    def __init__(self, name: str) -> None:
        self.key = name
        self.index = len(type(self).__members__)
        self.reason, self.source = _VERDICTS[name]
        #: It ends the try that is under way, rather than the exchange.
        self.is_of_try = self.source is Source.UPSTREAM
