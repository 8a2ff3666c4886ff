"""Who has sent a request, as far as the proxy believes it."""

from __future__ import annotations


class Client:
    """Where a request came from, as it is told to the upstream and to the log.

    ``address`` is an IP literal, or ``unix:``; ``scheme`` and ``host`` are what the client asked
    by; ``forwarded_for`` is the chain of hops behind it, the peer of this connection last.
    ``is_trusted`` says that the peer is a proxy whose forwarding fields are believed.
    """

    __slots__ = ("address", "forwarded_for", "host", "is_trusted", "scheme")

    def __init__(
        self,
        address: str,
        forwarded_for: bytes,
        scheme: bytes,
        host: bytes,
        *,
        is_trusted: bool,
    ) -> None:
        self.address = address
        self.forwarded_for = forwarded_for
        self.scheme = scheme
        self.host = host
        self.is_trusted = is_trusted

    def __repr__(self) -> str:
        trust = " trusted" if self.is_trusted else ""
        return f"<Client {self.address} {self.scheme!r} {self.host!r}{trust}>"
