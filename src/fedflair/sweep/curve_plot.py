"""The picture of a privacy-utility curve: score against epsilon, bands over seeds, and what no mechanism scores."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from fedflair.privacy.accounting import shown
from fedflair.sweep.budgets import NONE
from fedflair.sweep.curve import Curve, Point
from fedflair.sweep.results import words_of
from fedflair.system.files import replacing
from fedflair.system.terminal import cell

# Told apart by people who see colours otherwise, and in grey (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS = "osD^vP"


def draw_curve(curve: Curve, path: Path) -> None:
    """Writes the plot in the format that the name of ``path`` ends in. Raises DiskError where it cannot be written."""
    # Here, as it takes a second to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, name in enumerate(curve.names):
        style = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
        _line(axes, curve.of(name), cell(name), style)
    score = words_of(curve.metric)
    axes.set(ylabel=f"test {score}", xlabel=_x_label(curve))
    if ticks := _ticks(curve):
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xticks([], minor=True)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    axes.set_title(_title(curve, score), loc="left", fontsize="medium")
    if notes := _notes(curve):
        figure.supxlabel(notes, x=0.01, ha="left", fontsize="x-small")
    with replacing(path) as file:
        # Without the time, so that the same numbers are the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata)


def _line(axes: Any, points: list[Point], name: str, style: dict[str, str]) -> None:
    private = [point for point in points if point.asked != NONE and point.test.mean is not None]
    x, means = [float(point.asked) for point in private], [point.test.mean or 0.0 for point in private]
    if private:
        axes.plot(x, means, label=name or "with the mechanism", **style)
        axes.fill_between(x, *_band(private), color=style["color"], alpha=0.2, linewidth=0)
    for point in points:
        if point.asked == NONE and point.test.mean is not None:
            label = f"{name}, no mechanism" if name else "no mechanism"
            axes.axhline(point.test.mean, color=style["color"], linestyle="--", label=label)
            low, high = _band([point])
            axes.axhspan(low[0], high[0], color=style["color"], alpha=0.1, linewidth=0)


def _band(points: list[Point]) -> tuple[list[float], list[float]]:
    """(mean - deviation, mean + deviation) over seeds; one seed has no deviation."""
    pairs = [(point.test.mean or 0.0, point.test.std or 0.0) for point in points]
    return [mean - std for mean, std in pairs], [mean + std for mean, std in pairs]


def _ticks(curve: Curve) -> dict[float, str]:
    """A budget that was asked for -> what it came to, with marks; by curve where they differ."""
    ticks = {}
    for asked in dict.fromkeys(point.asked for point in curve.points if point.asked != NONE and point.num_done):
        told = {cell(point.curve): point.told for point in curve.points if point.asked == asked and point.num_done}
        shared = len(set(told.values())) == 1
        lines = [text if shared else f"{name}: {text}" for name, text in told.items()]
        # An epsilon of the run itself stands below that of its deployment.
        ticks[float(asked)] = "\n".join(dict.fromkeys(lines)).replace(" (", "\n(")
    return ticks


def _x_label(curve: Curve) -> str:
    return "epsilon" + ("" if curve.delta is None else f" at delta {curve.delta:g}")


def _title(curve: Curve, score: str) -> str:
    seeds = {point.num_done for point in curve.points if point.num_done}
    over = f"{min(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds, default=0)} to {max(seeds, default=0)} seeds"
    band = " ± one standard deviation" if max(seeds, default=0) > 1 else ""
    return f"Test {score} by privacy budget, mean of {over.replace('1 seeds', '1 seed')}{band}"


def _notes(curve: Curve) -> str:
    legend = shown.legend(*(point.facts for point in curve.points))
    return "\n".join(line for sentence in legend for line in textwrap.wrap(sentence, 110))
