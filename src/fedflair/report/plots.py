"""The report's figures as inline SVG that takes the page's colours and fonts, light or dark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedflair.report.data import Group, curve, label_means, numbers
from fedflair.system.terminal import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of middling lightness, so that each stands out on white and on near-black.
COLOURS = ("#2f86d6", "#e0661f", "#1a9e77", "#c468a5", "#c99a00", "#39a9c9", "#8a6fd1", "#8c8c8c")
INK = "#010203"
STYLE: Any = {
    "svg.hashsalt": "fedflair",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def curve_plot(groups: Sequence[Group], column: str, label: str, prevalence: float | None = None) -> str | None:
    """A line a group, with a band of one standard deviation where it has several runs; None without any value."""
    curves = [curve(group, column) for group in groups]
    if not any(rounds for rounds, _, _ in curves):
        return None
    figure, axes = _figure(6.4, 4.0)
    for (rounds, means, deviations), colour in zip(curves, COLOURS):
        axes.plot(rounds, means, color=colour, marker="o" if len(rounds) < 40 else None, markersize=3)
        if any(deviations):
            low, high = np.subtract(means, deviations), np.add(means, deviations)
            axes.fill_between(rounds, low, high, color=colour, alpha=0.18, linewidth=0)
    if prevalence is not None:
        axes.axhline(prevalence, color="#8c8c8c", linestyle=":")
        axes.annotate(
            "mean prevalence", (0.99, prevalence), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
    axes.set_xlabel("round")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    return _svg(figure)


def label_plot(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Bars of the AP on test of these labels, the first on top, a colour a group."""
    found = [(means, colour) for means, colour in zip(map(label_means, groups), COLOURS) if means]
    thickness = 0.8 / len(found)
    figure, axes = _figure(6.4, 0.7 + len(names) * max(0.22, 0.1 * len(found) + 0.05))
    rows = np.arange(len(names))
    for position, (means, colour) in enumerate(found):
        offsets = rows - 0.4 + thickness * (position + 0.5)
        axes.barh(offsets, [means.get(name, 0.0) for name in names], thickness, color=colour)
    axes.set_yticks(rows, map(_short, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AP on test")
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    return _svg(figure)


def user_plot(groups: Sequence[Group], partition: str) -> str | None:
    """Histogram of users' AP, a line a group, with a mark at its mean; None where no run was evaluated by user."""
    return _histogram(groups, partition, "AP of a user", (0.0, 1.0), lambda row: row.get("micro_ap"))


def gain_plot(groups: Sequence[Group], partition: str) -> str | None:
    """Histogram of what fine-tuning on a user's own images changed of that user's AP on held-out ones."""
    return _histogram(groups, partition, "change of a user's AP by personalisation", (-1.0, 1.0), _gain)


def _gain(row: Mapping[str, Any]) -> float | None:
    after, before = ((row.get(model) or {}).get("micro_ap") for model in ("personalised", "global"))
    return None if after is None or before is None else float(after - before)


def _histogram(
    groups: Sequence[Group], partition: str, label: str, limits: tuple[float, float], value: Any
) -> str | None:
    samples = [numbers(value(row) for run in group.runs for row in run.users.get(partition, ())) for group in groups]
    if not any(samples):
        return None
    figure, axes = _figure(6.4, 4.0)
    for sample, colour in zip(samples, COLOURS):
        if sample:
            shares, edges = np.histogram(sample, bins=20, range=limits, weights=np.full(len(sample), 1 / len(sample)))
            axes.stairs(shares, edges, color=colour, linewidth=1.6)
            axes.axvline(float(np.mean(sample)), color=colour, linestyle=":", linewidth=1.4)
    axes.set_xlim(*limits)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("share of users")
    axes.grid(alpha=0.25)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _short(name: str, longest: int = 60) -> str:
    """A label beside its bar, in one line that leaves room for the bar."""
    shown = cell(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _svg(figure: Figure) -> str:
    """The figure without background, its ink in the page's colour, the same each time it is drawn."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(STYLE), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
