"""Loading the configuration: a TOML file, or the environment, becomes `Settings`.

tomli parses, cattrs structures (`trio_proxy.settings.load.structure`), and the validators of the
settings classes decide. Whatever is wrong ends in a `ConfigError` with all problems, never in a
traceback.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import tomli

from trio_proxy.settings import Settings
from trio_proxy.settings.load.environment import from_environment, override
from trio_proxy.settings.load.problems import ConfigError, Problem
from trio_proxy.settings.load.structure import structure

__all__ = [
    "ConfigError",
    "Problem",
    "find_and_load",
    "from_environment",
    "load_file",
    "override",
    "parse",
]

#: A file beyond this is no configuration, and parsing it would only take long.
MAX_FILE_BYTES = 1_048_576
DEFAULT_FILE = "conf/proxy.toml"


def find_and_load(
    argument: str | None, environ: Mapping[str, str], *, cwd: str = "."
) -> tuple[Settings, str | None]:
    """The settings in force and the path of their file, None if they are the environment's.

    The file is ``argument``, else ``$CONFIG_PATH``, else ``conf/proxy.toml`` if there is one; a
    file in force wins over variables, which are not looked at then. Relative paths start at
    ``cwd``. Raises ConfigError.
    """
    name = argument or environ.get("CONFIG_PATH")
    path = os.path.normpath(os.path.join(cwd, name or DEFAULT_FILE))
    if name or os.path.exists(path):
        return load_file(path), path
    return from_environment(environ), None


def load_file(
    path: str | os.PathLike[str],
    *,
    handlers: Iterable[str] = (),
    middlewares: Iterable[str] = (),
) -> Settings:
    """The settings in a TOML file of at most 1 MiB of UTF-8; raises ConfigError.

    ``handlers`` and ``middlewares`` are the names under which `trio_proxy.open_proxy` will be given
    some, so that routes can have them; the mappings themselves will do.
    """
    source = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or str(exc)
        raise _fault(source, "", f"cannot be read: {reason}", "expected a TOML file") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise _fault(source, "", "is too large", f"expected at most {MAX_FILE_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as exc:
        where = "line {}".format(raw.count(b"\n", 0, exc.start) + 1)
        raise _fault(source, where, f"is not UTF-8: {exc.reason}", "expected UTF-8") from exc
    return parse(text, source=source, handlers=handlers, middlewares=middlewares)


def parse(
    text: str,
    *,
    source: str,
    handlers: Iterable[str] = (),
    middlewares: Iterable[str] = (),
) -> Settings:
    """The settings in a TOML document. Raises ConfigError, whose problems call it ``source``.

    For the names see `load_file`.
    """
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        message, where = _split_position(str(exc))
        raise _fault(source, where, f"is not valid TOML: {message}", "expected TOML 1.0") from exc
    except ValueError as exc:  # Python refuses to read integers of thousands of digits
        wrong = "has an integer of too many digits"
        raise _fault(source, "", wrong, "expected integers of 64 bits") from exc
    except RecursionError as exc:
        raise _fault(source, "", "is nested too deeply", "expected tables and keys") from exc
    return structure(document, source=source, handlers=handlers, middlewares=middlewares)


def _split_position(message: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message, re.DOTALL)
    return (found[1], found[2]) if found else (message, "")


def _fault(source: str, path: str, message: str, expected: str) -> ConfigError:
    return ConfigError([Problem(source, path, message, expected)])
