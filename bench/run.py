"""Compare trio-proxy with other reverse proxies on this machine: python bench/run.py --help"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import client
import compare
import creep
import flame
import growth
import idle
import machine
import pace
import plots
import proxies
import reach
import report
import results
import tables
import tunnel
import upstream
from contest import Contest
from plan import SMOKE, Run, Sizes
from processes import Bench, free_ports, pinned, raise_file_limit
from results import Results, Section

JSON = Path(__file__).with_name("results.json")

#: Not in a run unless it is asked for: it takes some minutes of its own.
ON_REQUEST = ("creep",)


def measure(run: Run, name: str) -> Section:
    """One section, by its name in `tables.SECTIONS`."""
    if name in compare.SCENARIOS:
        return compare.measure(run, name)
    if name in growth.CURVES:
        return growth.measure(run, name)
    return _OTHERS[name](run)


_OTHERS: dict[str, Callable[[Run], Section]] = {
    "tunnel": tunnel.measure,
    "latency": pace.measure,
    "idle": idle.measure_idle,
    "start": idle.measure_start,
    "creep": creep.measure,
}


def main() -> int:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # stop as with Ctrl-C
    if options.render:
        _write(results.load(JSON))
        return 0
    missing = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
    if missing:
        print(f"bench: {' and '.join(missing)} not found (wrk is the load, nginx the upstream)")
        return 2
    found = Results()
    try:
        with Bench() as bench, pinned(bench.load_core):
            run = _prepare(bench, found, options)
            if not run.chosen(*proxies.OURS):
                print(f"bench: {'; '.join(found.notes)}", file=sys.stderr)
                return 1
            if options.profile:
                return _profile(run, options.profile)
            _measure(run, options.only)
            if options.smoke:
                plots.draw(found, bench.directory / "plots")
    except KeyboardInterrupt:
        print("bench: interrupted; all that it started has been stopped", file=sys.stderr)
        return 130
    print(report.markdown(found))
    if options.json:
        results.save(found, options.json)
    if options.write:
        _write(results.load(JSON).updated(found))
    return _complain(found, options)


def _prepare(bench: Bench, found: Results, options: argparse.Namespace) -> Run:
    """Start the upstream, and see which proxies take part."""
    found.facts = machine.facts(has_one_core=bench.has_one_core)
    (port,) = free_ports(1)
    origin = upstream.start(bench, port, raise_file_limit())
    client.wait_for_answer(port, origin.process)
    contest = Contest(bench, found.notes.append)
    run = Run(
        bench=bench,
        contest=contest,
        upstream=origin,
        sizes=_sizes(options),
        proxies=(),
        results=found,
    )
    chosen = [*proxies.OURS, *options.peers]
    candidates = [proxy for proxy in proxies.ALL if proxy.name in chosen]
    able = contest.able(candidates, run.setup())
    found.versions.update({proxy.name: str(proxy.version()) for proxy in able})
    return replace(run, proxies=able)


def _measure(run: Run, names: Sequence[str]) -> None:
    for name in names:
        begun = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        try:
            run.results.sections[name] = measure(run, name)
        except OSError as exc:  # the rest is worth having
            run.results.notes.append(f"{name}: {exc}")
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


def _profile(run: Run, name: str) -> int:
    try:
        for path in flame.record(run, name):
            print(path)
    except flame.ProfileError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    return 0


def _write(everything: Results) -> None:
    results.save(everything, JSON)
    report.write_readme(everything, plots.draw(everything, plots.DIRECTORY))


def _complain(found: Results, options: argparse.Namespace) -> int:
    """The exit status: 1 if anything of ours went wrong."""
    complaints = found.complaints(options.only)
    rows = list(reach.creep_returned(found))
    if not options.smoke:  # so little says nothing about memory
        rows += reach.creep_memory(found)
    complaints += [f"{row.what}: {row.measured}" for row in rows if not row.verdict]
    for complaint in complaints:
        print(f"bench: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = SMOKE if options.smoke else Sizes()
    given = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "creep_requests": options.requests,
        "creep_aborts": options.aborts,
    }
    return replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _options() -> argparse.Namespace:
    kinds = list(tables.SECTIONS)
    peers = [proxy.name for proxy in proxies.ALL if proxy.name not in proxies.OURS]
    parser = argparse.ArgumentParser(description="trio-proxy and its peers, side by side")
    add = parser.add_argument
    add("--only", type=_names(kinds), metavar="A,B", help=f"of {', '.join(kinds)}")
    add(
        "--peers",
        type=_names(peers),
        metavar="A,B",
        default=peers,
        help=f"of {', '.join(peers)}; or none",
    )
    add("--seconds", type=float, help="length of a run (1.5)")
    add("--rounds", type=int, help="runs of each kind (5)")
    add("--creep", action="store_true", help="the creep run, alone if --only is not given")
    add("--requests", type=int, help="requests of the creep run (1,000,000)")
    add("--aborts", type=int, help="departed clients of the creep run (100,000)")
    add("--smoke", action="store_true", help="little of everything")
    add("--profile", choices=list(compare.SCENARIOS), help="record flame graphs instead")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--write", action="store_true", help="put the results into results.json, README.md, plots/")
    add("--render", action="store_true", help="only draw and print results.json anew")
    options = parser.parse_args()
    if options.only is None:
        default = [name for name in kinds if options.smoke or name not in ON_REQUEST]
        options.only = [] if options.creep else default
    if options.creep and "creep" not in options.only:
        options.only.append("creep")
    if any(value is not None and value <= 0 for value in (options.seconds, options.rounds)):
        parser.error("--seconds and --rounds must be more than 0")
    return options


def _names(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [] if text == "none" else text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"not known: {', '.join(sorted(unknown))}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
