"""Open files: how many the configured limits can need, and how many the system allows."""

from __future__ import annotations

import contextlib
import logging
import resource

import attrs

from trio_proxy.settings import Settings

log = logging.getLogger("trio_proxy.server")

#: Descriptors for listeners, scrapers, logs and the event loop itself.
SPARE_FILES = 64


def fit_to_open_files(settings: Settings) -> Settings:
    """Lift the soft limit on open files as far as needed, and accept no more clients than fit.

    Many systems start a process with 1,024, which the default limits alone exceed. If the hard
    limit is too low, half of what there is goes to clients, so that each can still have an
    upstream connection: a proxy that accepts everybody and can dial nobody serves nobody.
    """
    wanted = files_wanted(settings)
    allowed = raise_soft_limit(wanted)
    if allowed >= wanted:
        return settings
    clients = max(1, (allowed - min(SPARE_FILES, allowed // 2)) // 2)
    if clients >= settings.limits.max_client_conns:
        return settings
    log.warning(
        "open files are limited to %d and the configured limits can need %d: "
        "limits.max_client_conns is %d instead of %d",
        allowed,
        wanted,
        clients,
        settings.limits.max_client_conns,
    )
    limits = attrs.evolve(settings.limits, max_client_conns=clients)
    return attrs.evolve(settings, limits=limits)


def files_wanted(settings: Settings) -> int:
    """Descriptors that the configured limits can add up to."""
    limits = settings.limits
    per_upstream = (
        upstream.max_conns or (pool.limits or limits).max_conns_per_upstream
        for pool in settings.every_pool.values()
        for upstream in pool.upstreams
    )
    return limits.max_client_conns + sum(per_upstream) + SPARE_FILES


def raise_soft_limit(wanted: int) -> int:
    """Move the soft limit towards ``wanted``; the limit that is in force then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
