"""What the URL of a store says: passwords, TLS, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.redis_server import RedisServer
from support.shared_buckets import MARKS, is_local, make_buckets, running, store_lines
from trio_proxy.middleware.ratelimit.redis_connection import connection_maker

pytestmark = MARKS


@pytest.mark.parametrize("password", ["s3cret%21", "s3cret!"])
async def test_a_password_is_used(tmp_path: Path, password: str) -> None:
    """It may be percent-encoded in the URL."""
    with RedisServer(tmp_path, "--requirepass", "s3cret!") as redis:
        buckets = make_buckets(redis.url.replace("//", f"//:{password}@"))
        async with running(buckets):
            assert not is_local(await buckets.take(b"k"))


async def test_a_wrong_password_makes_the_limit_local_and_is_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the URL without it, and the reason."""
    with RedisServer(tmp_path, "--requirepass", "s3cret") as redis:
        buckets = make_buckets(redis.url.replace("//", "//default:wr0ng@"))
        async with running(buckets):
            assert is_local(await buckets.take(b"k"))
    (line,) = store_lines(caplog)
    assert redis.url in line
    assert "AuthenticationFailureError" in line
    assert "wr0ng" not in line + repr(buckets)


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("rediss://a.test", True),
        ("rediss://a.test/1?ssl_cert_reqs=required", True),
        ("rediss://a.test?ssl_check_hostname=false", False),
        ("rediss://a.test?ssl_cert_reqs=none", False),
    ],
)
def test_tls_checks_the_name_of_the_host_unless_the_url_says_otherwise(
    url: str, checks: bool
) -> None:
    """A certificate for another host is as good as none."""
    make = connection_maker(url)
    assert make.keywords["ssl_context"].check_hostname is checks


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:pw-0@/1", "redis://:pw-0@a:b", "rediss://:pw-0@a?ssl_ca_certs=/no/file"],
)
def test_a_url_that_cannot_be_used_is_a_value_error_without_its_password(url: str) -> None:
    """It is raised when the buckets are made, not when they are used."""
    with pytest.raises(ValueError, match=r"rediss?://") as caught:
        make_buckets(url)
    assert "pw-0" not in str(caught.value)
