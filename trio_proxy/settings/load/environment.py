"""Settings from environment variables, and the command line's flags on top of any settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from trio_proxy.http.addresses import TcpAddress, UnixAddress
from trio_proxy.settings import LoggingSettings, LogLevel, Settings, UpstreamSettings
from trio_proxy.settings.load.problems import ConfigError, Problem
from trio_proxy.settings.places import read_address
from trio_proxy.settings.table import SettingError, quote

ENVIRONMENT = "environment"
COMMAND_LINE = "command line"
#: The variable to blame for a rule that is broken between values.
_VARIABLES = {
    "upstreams": "UPSTREAM_HOSTS",
    "listen": "PROXY_LISTEN_PORT",
    "metrics_listen": "METRICS_LISTEN_PORT",
}


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Settings from variables alone; an empty one counts as not set.

    ``UPSTREAM_HOSTS`` is ``host:port,host:port``. ``PROXY_LISTEN_HOST``, ``PROXY_LISTEN_PORT``,
    ``METRICS_LISTEN_HOST`` and ``LOG_LEVEL`` have the defaults of a file; there is a metrics port
    only with ``METRICS_LISTEN_PORT``. Raises ConfigError, whose problems name the variables.
    """
    reader = _Reader({name: text for name, raw in environ.items() if (text := raw.strip())})
    values: dict[str, Any] = {
        "listen": reader.listen(),
        "metrics_listen": reader.metrics_listen(),
        "upstreams": reader.upstreams(),
        "logging": reader.logging(),
        "pools": {},
    }
    sound = {key: value for key, value in values.items() if value is not None}
    for error in Settings.conflicts(sound):
        key, bracket, rest = error.key.partition("[")
        reader.blame(_VARIABLES[key] + bracket + rest, error)
    if reader.problems:
        raise ConfigError(reader.problems)
    return Settings(**sound)


class _Reader:
    """Reads values one by one; a faulty one becomes a problem and is None."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[Problem] = []

    def blame(self, name: str, error: SettingError) -> None:
        self.problems.append(Problem(ENVIRONMENT, name, error.wrong, error.expected))

    def listen(self) -> tuple[TcpAddress, ...] | None:
        address = self._address("PROXY_LISTEN_HOST", "PROXY_LISTEN_PORT", "8080")
        return None if address is None else (address,)

    def metrics_listen(self) -> TcpAddress | None:
        if "METRICS_LISTEN_PORT" not in self.environ:
            if "METRICS_LISTEN_HOST" in self.environ:
                error = SettingError("", "is given without METRICS_LISTEN_PORT", "expected both")
                self.blame("METRICS_LISTEN_HOST", error)
            return None
        return self._address("METRICS_LISTEN_HOST", "METRICS_LISTEN_PORT", "")

    def _address(self, host_name: str, port_name: str, default_port: str) -> TcpAddress | None:
        host = self.environ.get(host_name, "127.0.0.1").removeprefix("[").removesuffix("]")
        port = self.environ.get(port_name, default_port)
        host_ok = self._try(host_name, host, str(TcpAddress(host, 0)), _HOST_EXPECTED)
        port_ok = self._try(port_name, port, f"127.0.0.1:{port}", _PORT_EXPECTED)
        return TcpAddress(host, int(port)) if host_ok and port_ok else None

    def _try(self, name: str, text: str, address: str, expected: str) -> bool:
        try:
            read_address(address)
        except SettingError:
            self.blame(name, SettingError(name, f"is {quote(text)}", expected))
            return False
        return True

    def upstreams(self) -> tuple[UpstreamSettings | None, ...] | None:
        name = "UPSTREAM_HOSTS"
        if name not in self.environ:
            expected = "expected host:port,host:port, or a configuration file"
            self.blame(name, SettingError(name, "is not set", expected))
            return None
        items = self.environ[name].split(",")
        return tuple(self._upstream(f"{name}[{i}]", item.strip()) for i, item in enumerate(items))

    def _upstream(self, name: str, text: str) -> UpstreamSettings | None:
        try:
            return _upstream(text)
        except SettingError as exc:
            self.blame(name, exc)
            return None

    def logging(self) -> LoggingSettings | None:
        try:
            return LoggingSettings(level=_level(self.environ.get("LOG_LEVEL", "info")))
        except SettingError as exc:
            self.blame("LOG_LEVEL", exc)
            return None


_HOST_EXPECTED = "expected a host name or an IP address"
_PORT_EXPECTED = "expected an integer from 0 to 65535"


def _upstream(text: str) -> UpstreamSettings:
    match read_address(text, lowest_port=1):
        case TcpAddress(host, port):
            return UpstreamSettings(host=host, port=port)
        case UnixAddress(path):
            return UpstreamSettings(unix=path)


def _level(text: str) -> LogLevel:
    # Other tools write levels in capitals. The validator of the class decides what is a level.
    return cast("LogLevel", text.lower())


def override(settings: Settings, *, listen: str | None, log_level: str | None) -> Settings:
    """Settings with the flags ``--listen HOST:PORT`` and ``--log-level LEVEL`` in force.

    None leaves a setting as it is; an address replaces all the others. Raises ConfigError, whose
    problems name the flags.
    """
    problems = []
    if listen is not None:
        try:
            settings = attrs.evolve(settings, listen=(read_address(listen),))
        except SettingError as exc:
            problems.append(Problem(COMMAND_LINE, "--listen", exc.wrong, exc.expected))
    if log_level is not None:
        try:
            logging = attrs.evolve(settings.logging, level=_level(log_level))
            settings = attrs.evolve(settings, logging=logging)
        except SettingError as exc:
            problems.append(Problem(COMMAND_LINE, "--log-level", exc.wrong, exc.expected))
    if problems:
        raise ConfigError(problems)
    return settings
