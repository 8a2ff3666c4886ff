"""The cookie that pins a client to an upstream (nginx: ``sticky cookie``).

Its value says nothing of the upstream's address: it is a keyed hash of the name, so that nobody
without the secret can tell or forge it by guessing, and every proxy with the same secret
understands it.
"""

from __future__ import annotations

import hashlib

from trio_proxy.http.headers import Field, Headers

#: Bytes of the hash in a cookie; enough that two upstreams of a pool never share one.
DIGEST_BYTES = 16


class Sticky:
    """Cookies of one name, made with one secret."""

    def __init__(self, name: str, secret: bytes) -> None:
        self.name = name
        self._name = name.encode()
        self._secret = hashlib.blake2b(secret).digest()

    def value_of(self, upstream: str) -> str:
        """The cookie that stands for an upstream, by its name."""
        key = self._secret
        return hashlib.blake2b(upstream.encode(), digest_size=DIGEST_BYTES, key=key).hexdigest()

    def values_in(self, headers: Headers) -> list[str]:
        """The values that a client sent; whether any means something is not known."""
        return [value.decode("latin-1") for value in headers.cookies(self._name)]

    def set_cookie(self, value: str, *, secure: bool) -> Field:
        """The field that has a client come back to the same upstream (RFC 6265 §4.1)."""
        text = f"{self.name}={value}; Path=/; HttpOnly; SameSite=Lax"
        return b"Set-Cookie", (text + "; Secure" * secure).encode()
