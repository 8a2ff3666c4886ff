"""Each worker's share: what bounds the whole is divided, everything else is the same for all."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.server.workers.division import share_of, too_small
from trio_proxy.settings import (
    Limits,
    PoolLimits,
    PoolSettings,
    RateLimitSettings,
    RouteSettings,
    Settings,
    UpstreamSettings,
)

UPSTREAM = UpstreamSettings(host="127.0.0.1", port=9001)


def settings_with(**values: object) -> Settings:
    return Settings(**{"upstreams": (UPSTREAM,), **values})  # type: ignore[arg-type]


def test_connections_and_queue_are_divided_and_rounded_up() -> None:
    """Limits are for the whole, however many workers there are."""
    limits = Limits(max_client_conns=1000, max_conns_per_upstream=100, max_queue=7)
    share = share_of(settings_with(limits=limits), 3)
    assert share.limits == attrs.evolve(
        limits, max_client_conns=334, max_conns_per_upstream=34, max_queue=3
    )


def test_no_queue_stays_no_queue() -> None:
    """0 is not rounded up."""
    assert share_of(settings_with(limits=Limits(max_queue=0)), 4).limits.max_queue == 0


def test_the_cap_of_an_upstream_is_divided() -> None:
    """One without a cap of its own goes by that of all."""
    capped = UpstreamSettings(host="127.0.0.1", port=9002, max_conns=5)
    share = share_of(settings_with(upstreams=(UPSTREAM, capped)), 2)
    assert [each.max_conns for each in share.upstreams] == [None, 3]


def test_each_pool_is_divided() -> None:
    """Its own limits and caps; one without limits goes by the file's, which are divided once."""
    capped = UpstreamSettings(host="127.0.0.1", port=9002, max_conns=5)
    limits = PoolLimits(max_conns_per_upstream=10, max_queue=7, queue_ms=1)
    pools = {
        "own": PoolSettings(upstreams=(capped,), limits=limits),
        "common": PoolSettings(upstreams=(UPSTREAM,)),
    }
    share = share_of(settings_with(pools=pools), 2).pools
    assert share["own"].limits == attrs.evolve(limits, max_conns_per_upstream=5, max_queue=4)
    assert [each.max_conns for each in share["own"].upstreams] == [3]
    assert share["common"] == pools["common"]


def test_a_rate_limit_of_our_own_is_divided() -> None:
    """Rate and burst; how many buckets a worker keeps is its own."""
    limit = RateLimitSettings(rate=5, burst=20, max_keys=10)
    share = share_of(settings_with(rate_limit=limit), 2)
    assert share.rate_limit == RateLimitSettings(rate=2.5, burst=10, max_keys=10)


def test_a_rate_limit_in_a_store_is_shared() -> None:
    """The store divides it by itself, by who comes."""
    limit = RateLimitSettings(rate=5, burst=20, store="redis://127.0.0.1/0")
    assert share_of(settings_with(rate_limit=limit), 2).rate_limit == limit


def test_the_lowest_rate_there_is_can_be_divided() -> None:
    """The share is the lowest rate there is, too."""
    share = share_of(settings_with(rate_limit=RateLimitSettings(rate=0.001, burst=1)), 8)
    assert share.rate_limit == RateLimitSettings(rate=0.001, burst=1)


def test_everything_else_is_the_same() -> None:
    """With all that is divided put back, a share is the whole."""
    whole = settings_with(workers=4, rate_limit=RateLimitSettings())
    share = share_of(whole, 4)
    assert share != whole
    back = {name: getattr(whole, name) for name in ("limits", "upstreams", "rate_limit")}
    assert attrs.evolve(share, **back) == whole


def test_small_caps_of_a_pool_are_told_with_its_name() -> None:
    pool = PoolSettings(
        upstreams=(UpstreamSettings(unix="/app.sock", max_conns=2),),
        limits=PoolLimits(max_conns_per_upstream=3, max_queue=0),
    )
    settings = Settings(pools={"api": pool}, routes=(RouteSettings(pool="api"),))
    assert dict(too_small(settings, 4)) == {
        "pools.api.limits.max_conns_per_upstream": 3,
        "pools.api.upstreams[0].max_conns": 2,
    }


@given(st.integers(1, 10_000), st.integers(1, 1024))
def test_shares_add_up_to_the_whole_and_less_than_one_each_beyond_it(
    cap: int, workers: int
) -> None:
    """Nobody gets nothing, and rounding up costs less than one for each worker."""
    share = share_of(settings_with(limits=Limits(max_client_conns=cap)), workers)
    total = share.limits.max_client_conns * workers
    assert cap <= total < cap + workers


@pytest.mark.parametrize("store", ["", "redis://127.0.0.1/0"])
def test_caps_smaller_than_the_number_of_workers_are_told(store: str) -> None:
    """By key, with their value; 0 is no cap to divide, and what is shared is none."""
    settings = settings_with(
        limits=Limits(max_client_conns=4, max_conns_per_upstream=3, max_queue=0),
        upstreams=(UPSTREAM, UpstreamSettings(unix="/app.sock", max_conns=2)),
        rate_limit=RateLimitSettings(burst=1, store=store),
    )
    expected = {"limits.max_conns_per_upstream": 3, "upstreams[1].max_conns": 2}
    if not store:
        expected["rate_limit.burst"] = 1
    assert dict(too_small(settings, 4)) == expected
