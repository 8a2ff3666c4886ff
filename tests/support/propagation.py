"""Words that the tests of deadlines from hop to hop share."""

from __future__ import annotations

from ipaddress import ip_network

from trio_proxy.settings import HeaderSettings

NAME = "X-Request-Deadline-Ms"
SENT = HeaderSettings(deadline_header=NAME)
TRUSTING = HeaderSettings(deadline_header=NAME, trusted_proxies=(ip_network("198.51.100.0/24"),))
DEADLINE = NAME.lower().encode()
GRPC = b"grpc-timeout"


def get(*fields: bytes) -> bytes:
    """A request with these field lines."""
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(each + b"\r\n" for each in fields) + b"\r\n"
