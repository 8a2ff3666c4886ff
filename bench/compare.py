"""Every proxy under the same load: small exchanges and large bodies, with wrk."""

from __future__ import annotations

import load
from contest import in_turn, rest
from load import LoadError, Scenario
from plan import Run, new_section
from results import Section
from upstream import MIB

SCENARIOS = {
    "small-32": Scenario(connections=32),
    "small-256": Scenario(connections=256),
    "download": Scenario(mode="download", path="/big", connections=8, size=MIB),
    "upload": Scenario(mode="upload", path="/upload", connections=8, size=MIB),
}


def measure(run: Run, name: str) -> Section:
    """Every proxy once in each round, in turn."""
    section = new_section(runs=f"{run.sizes.rounds} of {run.sizes.seconds:g} s")
    with run.contest.servers(run.proxies, run.setup()) as servers:
        for number in run.rounds():
            for server in in_turn(servers, number):
                try:
                    sample = load.run(
                        SCENARIOS[name], server, run.upstream, run.load_core, run.sizes.seconds
                    )
                except (LoadError, OSError) as exc:
                    section.notes.append(f"{server.name}: {exc}")
                else:
                    section.add(server.name, {"round": number, **sample})
                rest(server)
    return section
