"""How many open files a configuration can need."""

from __future__ import annotations

from trio_proxy.server.files import SPARE_FILES, files_wanted
from trio_proxy.settings import Limits, PoolLimits, PoolSettings, Settings, UpstreamSettings


def test_the_upstreams_of_every_pool_count() -> None:
    """By their own caps, those of their pool, or the file's."""
    plain = UpstreamSettings(unix="/a")
    settings = Settings(
        limits=Limits(max_client_conns=1000, max_conns_per_upstream=100),
        upstreams=(plain, UpstreamSettings(unix="/b", max_conns=7)),
        pools={
            "own": PoolSettings(upstreams=(plain,), limits=PoolLimits(max_conns_per_upstream=20)),
            "common": PoolSettings(upstreams=(plain,)),
        },
    )
    assert files_wanted(settings) == 1000 + (100 + 7) + 20 + 100 + SPARE_FILES
