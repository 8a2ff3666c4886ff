"""How many workers `auto` is: affinity, and the quotas of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_proxy.server.cores import usable_cores, worker_count
from trio_proxy.settings import Settings, UpstreamSettings, Workers

CORES = len(os.sched_getaffinity(0))


class Groups:
    """A ``/proc`` and a ``/sys/fs/cgroup`` in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def own(self, text: str) -> None:
        (self.proc / "self" / "cgroup").write_text(text)

    def quota(self, group: str, text: str) -> None:
        folder = self.cgroups / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(text)

    def cores(self) -> int:
        return usable_cores(self.proc, self.cgroups)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def test_without_control_groups_it_is_the_affinity(groups: Groups) -> None:
    """No file, no quota."""
    assert groups.cores() == CORES


def test_a_quota_of_our_group_counts(groups: Groups) -> None:
    """Half a core is one worker."""
    groups.own("0::/system.slice/proxy.service\n")
    groups.quota("system.slice/proxy.service", "50000 100000\n")
    assert groups.cores() == 1


@pytest.mark.parametrize("group", ["", "kube", "kube/pod"])
def test_a_quota_of_a_group_around_ours_counts(groups: Groups, group: str) -> None:
    """The tightest of all is in force."""
    groups.own("1:cpu:/old\n0::/kube/pod/container\n")
    groups.quota("kube/pod/container", "max 100000\n")
    groups.quota(group, "100000 100000\n")
    assert groups.cores() == 1


@pytest.mark.parametrize("text", ["max 100000", "99900000 100000", "nonsense", "", "1 0"])
def test_what_limits_nothing_is_no_quota(groups: Groups, text: str) -> None:
    """Nor is what cannot be read."""
    groups.own("0::/a\n")
    groups.quota("a", text)
    assert groups.cores() == CORES


@pytest.mark.parametrize(("workers", "expected"), [(1, 1), (7, 7), ("auto", usable_cores())])
def test_a_number_is_taken_at_its_word(workers: Workers, expected: int) -> None:
    """Also one beyond the number of cores."""
    upstream = UpstreamSettings(host="127.0.0.1", port=9001)
    assert worker_count(Settings(upstreams=(upstream,), workers=workers)) == expected
