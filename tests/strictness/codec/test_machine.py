"""Which h11 is chosen, and what the environment can say about it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

IS_THERE = importlib.util.find_spec("h11_mypyc") is not None


def chosen(wanted: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TRIO_PROXY_H11"}
    if wanted is not None:
        env["TRIO_PROXY_H11"] = wanted
    program = "from trio_proxy.codec.h1.machine import NAME; print(NAME)"
    return subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )


def test_the_compiled_one_is_taken_if_it_is_installed() -> None:
    """No setting is needed for it."""
    name = "h11_mypyc" if IS_THERE else "h11"
    assert chosen(None).stdout.startswith(f"{name} 0.")


def test_the_plain_one_can_be_asked_for() -> None:
    """It is always installed."""
    assert chosen("h11").stdout.startswith("h11 0.")


@pytest.mark.skipif(IS_THERE, reason="the speed extra is installed")
def test_the_compiled_one_cannot_be_had_without_the_extra() -> None:
    """Nobody who insists on it gets the other one without knowing."""
    assert "No module named 'h11_mypyc'" in chosen("h11_mypyc").stderr


def test_an_unknown_one_is_refused() -> None:
    """The error says what there is."""
    expected = "TRIO_PROXY_H11: is 'httptools' (expected h11 or h11_mypyc)"
    assert expected in chosen("httptools").stderr


def test_a_wrong_choice_ends_the_command_line_with_one_line() -> None:
    """No traceback."""
    env = {**os.environ, "TRIO_PROXY_H11": "httptools"}
    done = subprocess.run(
        [sys.executable, "-m", "trio_proxy", "demo"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "trio-proxy: TRIO_PROXY_H11: is 'httptools' (expected h11 or h11_mypyc)\n"
