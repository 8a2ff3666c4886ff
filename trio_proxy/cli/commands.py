"""The command line: ``trio-proxy run``, ``check`` and ``demo``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import trio

from trio_proxy.server import demo as demonstration
from trio_proxy.server.cores import worker_count
from trio_proxy.server.run import serve
from trio_proxy.settings import Settings
from trio_proxy.settings.load import toml as config
from trio_proxy.settings.load.toml import ConfigError
from trio_proxy.telemetry import loggers
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import StreamSink

T = TypeVar("T")

EXIT_FAILURE = 1
EXIT_BAD_CONFIG = 2


app_dir_option = click.option(
    "--app-dir",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Where to find the modules of middlewares, beside PYTHONPATH.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trio-proxy", prog_name="trio-proxy")
def commands() -> None:
    """An HTTP/1.1 reverse proxy."""


@commands.command()
@click.argument("config_path", metavar="[CONFIG]", required=False)
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead of where the file says.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@app_dir_option
def run(
    config_path: str | None, listen: str | None, log_level: str | None, app_dir: str | None
) -> None:
    """Serve.

    Without CONFIG: $CONFIG_PATH, else conf/proxy.toml if it is there, else the environment
    variables UPSTREAM_HOSTS, PROXY_LISTEN_HOST, PROXY_LISTEN_PORT and so on alone. SIGHUP reloads,
    SIGTERM and SIGINT drain and stop.
    """

    _find_modules_in(app_dir)

    def load() -> tuple[Settings, str]:
        settings, path = config.find_and_load(config_path, os.environ)
        settings = config.override(settings, listen=listen, log_level=log_level)
        return settings, path or "the environment"

    def load_again() -> Settings:
        return load()[0]

    settings, source = _or_exit(load)

    def main_task(writer: LogWriter) -> Coroutine[Any, Any, None]:
        if workers == 1:
            return serve(settings, source=source, load=load_again, writer=writer)
        from trio_proxy.server.workers.supervisor import supervise  # one process has no use for it

        return supervise(settings, workers, source=source, load=load_again, writer=writer)

    workers = worker_count(settings)
    _serve_until_stopped(settings, main_task, is_shared=workers > 1)


@commands.command()
@click.argument("config_path", metavar="CONFIG")
@app_dir_option
def check(config_path: str, app_dir: str | None) -> None:
    """Validate a configuration: one line for each problem, and exit status 2 if there is one.

    Pools and middlewares that no route leads to are mentioned, and are no problem.
    """
    _find_modules_in(app_dir)
    settings = _or_exit(lambda: config.load_file(config_path))
    for remark in settings.remarks():
        click.echo(f"{config_path}: {remark}", err=True)
    click.echo(f"{config_path}: ok")


@commands.command()
def demo() -> None:
    """Show the proxy at work: two echo upstreams and the proxy before them, on free ports."""
    settings = demonstration.proxy_settings()
    _serve_until_stopped(settings, demonstration.run)


def _find_modules_in(directory: str | None) -> None:
    """Have Python look there last: no file in it can take the place of a module that is installed.

    Workers inherit the path.
    """
    if directory is not None:
        sys.path.append(os.path.abspath(directory))


def _or_exit(load: Callable[[], T]) -> T:
    try:
        return load()
    except ConfigError as exc:
        click.echo(str(exc), err=True)
        sys.exit(EXIT_BAD_CONFIG)


def _serve_until_stopped(
    settings: Settings,
    main_task: Callable[[LogWriter], Coroutine[Any, Any, None]],
    *,
    is_shared: bool = False,
) -> None:
    """Run the event loop with the log on stderr; one readable line for what ends it.

    ``is_shared``: other processes of ours write to stderr too.
    """
    writer = LogWriter(StreamSink(is_shared=is_shared))
    loggers.configure(writer, settings.logging.level, settings.logging.format)
    failure: OSError | None = None
    try:
        trio.run(main_task, writer)
    except* OSError as group:
        failure = _first(group)
    finally:
        loggers.unconfigure()
    if failure is not None:
        click.echo(f"trio-proxy: {failure.strerror or failure}", err=True)
        sys.exit(EXIT_FAILURE)


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    assert isinstance(exc, OSError)
    return exc
