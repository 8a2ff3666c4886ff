"""Compare trio-proxy with other reverse proxies on this machine: python bench/run.py --help"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import load
import machine
import measure
import proxies
import report
import upstream
from measure import NotEqual
from processes import Bench, Process, free_ports, pick_cores, pinned, raise_file_limit
from proxies import TRIO_PROXY, Proxy

IDLE = "idle"
IDLE_CONNECTIONS = 2000

#: Before the first round each proxy is loaded for so long, so that pools and caches are filled.
WARM_UP_SECONDS = 1

#: Lets a proxy finish with the connections of the last load before the next one is measured.
PAUSE_SECONDS = 0.1


class Contest:
    """The proxies that are up, their ports, and what has been measured so far."""

    def __init__(self, bench: Bench, results: report.Results) -> None:
        self.bench = bench
        self.results = results
        self._running: dict[Proxy, tuple[Process, int]] = {}
        self._logs: list[Path] = []

    def start(self, candidates: list[Proxy]) -> None:
        """Start the upstream and each candidate that is installed and works; note the others."""
        files = raise_file_limit()
        upstream_port, *ports = free_ports(1 + len(candidates))
        measure.wait_for_answer(upstream_port, upstream.start(self.bench, upstream_port, files))
        for proxy, port in zip(candidates, ports, strict=True):
            found = proxy.version()
            if found is None:
                self.results.notes.append(f"{proxy.name} is not installed")
                continue
            try:
                self._start(proxy, port, upstream_port)
            except (NotEqual, OSError) as exc:
                self.results.notes.append(f"{proxy.name} was left out: {exc}")
                continue
            self.results.versions[proxy.name] = found

    def _start(self, proxy: Proxy, port: int, upstream_port: int) -> None:
        command, env = proxy.prepare(self.bench.directory, port, upstream_port)
        begun = time.monotonic()
        process = self.bench.start(proxy.name, command, env=env)
        measure.wait_for_answer(port, process)
        self.results.start_ms[proxy.name] = (time.monotonic() - begun) * 1000
        log = proxy.log_path(self.bench.directory)
        measure.check_work(port, log, has_features=proxy.has_features)
        self._running[proxy] = process, port
        self._logs.append(log)

    def measure_idle(self) -> None:
        for proxy, (process, port) in self._running.items():
            try:
                kib = measure.idle_kib(port, process, IDLE_CONNECTIONS)
            except OSError as exc:
                self.results.fail(proxy.name, IDLE, exc)
            else:
                self.results.idle_kib[proxy.name] = kib

    def warm_up(self) -> None:
        for proxy in self._running:
            self._load(proxy, load.SCENARIOS[0], WARM_UP_SECONDS)

    def run_round(self, scenarios: list[load.Scenario], seconds: int) -> None:
        """Every proxy once in every scenario, in turn: A B C, not A A, B B."""
        for scenario in scenarios:
            for proxy in self._running:
                if sample := self._load(proxy, scenario, seconds):
                    self.results.add(proxy.name, scenario, sample)

    def _load(self, proxy: Proxy, scenario: load.Scenario, seconds: int) -> load.Sample | None:
        process, port = self._running[proxy]
        try:
            sample = load.run(scenario, port, process, self.bench.load_core, seconds)
        except load.LoadError as exc:
            self.results.fail(proxy.name, scenario.name, exc)
            sample = None
        for log in self._logs:
            measure.empty(log)
        time.sleep(PAUSE_SECONDS)
        return sample


def main() -> int:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # stop as with Ctrl-C
    missing = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
    if missing:
        print(f"bench: {' and '.join(missing)} not found (wrk is the load, nginx the upstream)")
        return 2
    results = report.Results(machine.facts(pick_cores()))
    results.facts["runs"] = f"{options.rounds} of {options.seconds} s each, medians"
    try:
        with Bench() as bench, pinned(bench.load_core):
            _measure(Contest(bench, results), options)
    except KeyboardInterrupt:
        print("bench: interrupted; all that it started has been stopped", file=sys.stderr)
        return 130
    print(report.markdown(results))
    if options.json:
        report.write_json(results, options.json)
    if options.write:
        report.write_readme(results)
    return 1 if results.failed(TRIO_PROXY) else 0


def _measure(contest: Contest, options: argparse.Namespace) -> None:
    chosen = [TRIO_PROXY, *options.peers]
    contest.start([proxy for proxy in proxies.ALL if proxy.name in chosen])
    scenarios = [scenario for scenario in load.SCENARIOS if scenario.name in options.only]
    if IDLE in options.only:
        contest.measure_idle()
    if scenarios and not options.smoke:
        contest.warm_up()
    for number in range(options.rounds if scenarios else 0):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        contest.run_round(scenarios, options.seconds)


def _options() -> argparse.Namespace:
    kinds = [*(scenario.name for scenario in load.SCENARIOS), IDLE]
    peers = [proxy.name for proxy in proxies.ALL if proxy.name != TRIO_PROXY]
    parser = argparse.ArgumentParser(description="trio-proxy and its peers, side by side")
    add = parser.add_argument
    add("--seconds", type=int, default=2, help="length of a run (2)")
    add("--rounds", type=int, default=5, help="runs of each kind (5)")
    add("--only", type=_names(kinds), default=kinds, help=f"of {','.join(kinds)}")
    add("--peers", type=_names(peers), default=peers, help=f"of {','.join(peers)}; or none")
    add("--json", type=Path, metavar="FILE", help="write all samples")
    add("--write", action="store_true", help="replace the tables in bench/README.md")
    add("--smoke", action="store_true", help="one round of one second, for CI")
    options = parser.parse_args()
    if options.smoke:
        options.seconds = options.rounds = 1
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds must be at least 1")
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
