"""The results as small SVG files. Matplotlib is imported when something is drawn, not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from growth import CURVES
from plan import KIB
from proxies import ALL
from results import Results, Section, extent, median
from tables import TITLES, level_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTORY = Path(__file__).with_name("plots")
OVERVIEW = "overview.svg"

#: What a curve shows: a title, the figure, and its scale.
_PANELS = (
    ("requests/s", "requests_per_second", 1.0),
    ("CPU µs/request", "cpu_us", 1.0),
    ("RSS MiB", "rss_kib", 1 / KIB),
)

#: Text stays text, which is smaller; and equal results give equal files.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trio-proxy",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.3,
}

Draw = Callable[["Figure"], None]


def file_name(section: str) -> str:
    return f"{section}.svg"


def draw(results: Results, directory: Path) -> list[str]:
    """Draw all there is; the names of the files. Raises ImportError without matplotlib."""
    import matplotlib

    directory.mkdir(exist_ok=True)
    drawn = []
    with matplotlib.rc_context(_STYLE):
        for name in CURVES:
            section = results.section(name)
            if section.samples:
                drawn.append(_save(directory, file_name(name), (9, 2.6), _curve(section, name)))
        if results.section("creep").samples:
            drawn.append(
                _save(directory, file_name("creep"), (9, 2.4), _creep(results.section("creep")))
            )
        if results.section("small-32").samples:
            drawn.append(_save(directory, OVERVIEW, (9, 4.6), _overview(results)))
    return drawn


def _save(directory: Path, name: str, size: tuple[float, float], fill: Draw) -> str:
    # A Figure of its own: pyplot would keep each one, and may look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    fill(figure)
    figure.savefig(directory / name, format="svg", metadata={"Date": None, "Creator": None})
    return name


def _curve(section: Section, name: str) -> Draw:
    levels = sorted({one["level"] for samples in section.samples.values() for one in samples})
    texts = [level_text(name, level) for level in levels]

    def fill(figure: Figure) -> None:
        figure.suptitle(TITLES[name])
        panels = figure.subplots(1, len(_PANELS))
        for axes, (title, figure_name, scale) in zip(panels, _PANELS, strict=True):
            for proxy in section.samples:
                _line(axes, section, proxy, levels, figure_name, scale)
            axes.set_title(title, fontsize=8)
            axes.set_xticks(range(len(levels)), texts)
            if figure_name == "rss_kib":
                axes.set_ylim(bottom=0)
            else:
                _logarithmic(axes)
        panels[0].legend(frameon=False)

    return fill


def _logarithmic(axes: Axes) -> None:
    """With figures at 1, 10 and so on, and at 2 and 5 if there is room, written plainly."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _line(
    axes: Axes, section: Section, proxy: str, levels: list[float], name: str, scale: float
) -> None:
    """The medians, with bars from the smallest to the largest."""
    places, middles, below, above = [], [], [], []
    for place, level in enumerate(levels):
        if samples := section.of(proxy, level):
            middle, (low, high) = median(samples, name), extent(samples, name)
            places.append(place)
            middles.append(middle * scale)
            below.append((middle - low) * scale)
            above.append((high - middle) * scale)
    axes.errorbar(places, middles, yerr=[below, above], marker="o", capsize=2, label=proxy)


def _creep(section: Section) -> Draw:
    panels = (("RSS MiB", "rss_kib", 1 / KIB), ("open files", "files", 1), ("tasks", "tasks", 1))

    def fill(figure: Figure) -> None:
        figure.suptitle("While requests and departed clients add up, and at the end without any")
        drawn: Any = figure.subplots(1, len(panels))
        for axes, (title, name, scale) in zip(drawn, panels, strict=True):
            for samples in section.samples.values():
                requests = [one["requests"] / 1000 for one in samples[1:]]
                axes.plot(requests, [one[name] * scale for one in samples[1:]], marker=".")
            axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
            axes.set_title(title, fontsize=8)
            axes.set_xlabel("thousand requests")

    return fill


def _overview(results: Results) -> Draw:
    panels: tuple[tuple[str, str, str], ...] = (
        ("small-32", "requests_per_second", "requests/s, 32 connections"),
        ("small-32", "cpu_us", "CPU µs/request, 32 connections"),
        ("download", "mib_per_second", "1 MiB responses, MiB/s"),
        ("upload", "mib_per_second", "1 MiB uploads, MiB/s"),
        ("tunnel", "messages_per_second", "WebSocket messages/s"),
        ("idle", "kib", "KiB per idle connection"),
    )

    def fill(figure: Figure) -> None:
        grid: Any = figure.subplots(2, 3)
        for axes, (section, name, title) in zip(grid.flat, panels, strict=True):
            _bars(axes, results.section(section), name)
            axes.set_title(title, fontsize=8)

    return fill


def _bars(axes: Axes, section: Section, name: str) -> None:
    names = [proxy.name for proxy in reversed(ALL) if section.of(proxy.name)]
    values = [median(section.of(proxy), name) for proxy in names]
    colours = ["C0" if proxy.startswith("trio-proxy") else "0.6" for proxy in names]
    axes.barh(names, values, color=colours)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.locator_params(axis="x", nbins=4)
