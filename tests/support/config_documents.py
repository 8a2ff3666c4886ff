"""Documents of a configuration, for the tests of what loads and what is refused."""

from __future__ import annotations

import pytest

from trio_proxy.settings import Settings
from trio_proxy.settings.load.toml import ConfigError, parse

UPSTREAM = "[[upstreams]]\nhost = '127.0.0.1'\nport = 9001\n"


def load(text: str) -> Settings:
    """Settings of a document that has one upstream besides."""
    return parse(f"{text}\n{UPSTREAM}", source="x.toml")


def refusal(text: str) -> str:
    """All the problems of such a document, one a line, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).replace("x.toml: ", "")
