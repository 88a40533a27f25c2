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

# Of middling lightness, so that each stands out on white and on near-black; a marker each, for who sees no colours.
COLOURS = (
    "#2f86d6", "#e0661f", "#1a9e77", "#c468a5", "#c99a00", "#39a9c9", "#8a6fd1", "#8c8c8c", "#a5582a", "#6fa12b",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
INK = "#010203"
STYLE: Any = {
    "svg.hashsalt": "fedflair",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
_FEW = 40
MOST_HISTOGRAMS = 3


def curve_plot(groups: Sequence[Group], column: str, label: str, prevalence: float | None = None) -> str | None:
    """A line a group, with a band of one standard deviation where it has several runs; None without any value."""
    from matplotlib.ticker import MaxNLocator

    curves = [curve(group, column) for group in groups]
    if not any(rounds for rounds, _, _ in curves):
        return None
    figure, axes = _figure(5.2, 3.4)
    for (rounds, means, deviations), colour, marker in zip(curves, COLOURS, MARKERS):
        # Of a long curve some points are marked, so that it can be told from the others.
        every = max(1, len(rounds) // 10) if len(rounds) >= _FEW else 1
        axes.plot(rounds, means, color=colour, marker=marker, markersize=4, markevery=every, linewidth=1.4)
        if any(deviations):
            low, high = np.subtract(means, deviations), np.add(means, deviations)
            axes.fill_between(rounds, low, high, color=colour, alpha=0.18, linewidth=0)
    if prevalence is not None:
        axes.axhline(prevalence, color="#8c8c8c", linestyle=":")
        axes.annotate(
            "mean prevalence",
            (0.99, prevalence),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=INK,
        )
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    return _svg(figure)


def label_plot(groups: Sequence[Group], names: Sequence[str]) -> str:
    """The AP on test of these labels, the first on top: of one group bars, of several a mark each on one line."""
    found = [look for look in zip(map(label_means, groups), COLOURS, MARKERS) if look[0]]
    figure, axes = _figure(5.6, 0.9 + len(names) * 0.24)
    rows = np.arange(len(names))
    values = np.array([[means.get(name, np.nan) for name in names] for means, _, _ in found])
    if len(found) == 1:
        axes.barh(rows, values[0], 0.7, color=found[0][1])
    else:
        known = np.isfinite(values).any(axis=0)
        ends = [np.nanmin(values[:, known], axis=0), np.nanmax(values[:, known], axis=0)]
        axes.hlines(rows[known], *ends, color="#8c8c8c", alpha=0.5, linewidth=1.5)
        for row, (_, colour, marker) in zip(values, found):
            axes.plot(row, rows, color=colour, marker=marker, linestyle="", markersize=5.5, alpha=0.9)
    axes.set_yticks(rows, map(_short, names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    # Of rare labels the bars would be nothing on an axis to 1.
    most = max(0.05, float(np.nanmax(values, initial=0.0)))
    axes.set_xlim(-0.02 * min(1, most) if len(found) > 1 else 0, 1.02 if most > 0.5 else 1.15 * most)
    axes.set_xlabel("AP on test")
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    return _svg(figure)


def rank_plot(groups: Sequence[Group]) -> str:
    """How AP falls from a group's best label to its worst: of so many labels no row each can be read."""
    figure, axes = _figure(5.2, 3.4)
    for means, colour, marker in zip(map(label_means, groups), COLOURS, MARKERS):
        values = np.sort(list(means.values()))[::-1]
        every = max(1, len(values) // 10)
        ranks = np.arange(1, len(values) + 1)
        axes.plot(ranks, values, color=colour, marker=marker, markersize=4, markevery=every, linewidth=1.4)
    axes.set_ylim(0, 1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("label, from the group's best to its worst")
    axes.set_ylabel("AP on test")
    axes.grid(alpha=0.25)
    return _svg(figure)


def user_plot(groups: Sequence[Group], partition: str) -> str | None:
    """How users' AP is spread, a line a group; None where no run was evaluated by user.

    Of up to three groups histograms, with a mark at the mean; of more, the share of users up to each AP.
    """
    return _histogram(groups, partition, "AP of a user", (0.0, 1.0), lambda row: row.get("micro_ap"))


def gain_plot(groups: Sequence[Group], partition: str) -> str | None:
    """The same of what fine-tuning on a user's own images changed of that user's AP on held-out ones."""
    return _histogram(groups, partition, "change of a user's AP by personalisation", (-1.0, 1.0), user_gain)


def user_gain(row: Mapping[str, Any]) -> float | None:
    after, before = ((row.get(model) or {}).get("micro_ap") for model in ("personalised", "global"))
    return None if after is None or before is None else float(after - before)


def _histogram(
    groups: Sequence[Group], partition: str, label: str, limits: tuple[float, float], value: Any
) -> str | None:
    samples = [numbers(value(row) for run in group.runs for row in run.users.get(partition, ())) for group in groups]
    if not any(samples):
        return None
    figure, axes = _figure(5.2, 3.4)
    many = sum(map(bool, samples)) > MOST_HISTOGRAMS
    for sample, colour, marker in zip(samples, COLOURS, MARKERS):
        if sample and many:
            shares, every = np.arange(1, len(sample) + 1) / len(sample), max(1, len(sample) // 8)
            axes.plot(
                np.sort(sample), shares, color=colour, marker=marker, markersize=4, markevery=every, linewidth=1.4
            )
        elif sample:
            shares, edges = np.histogram(sample, bins=20, range=limits, weights=np.full(len(sample), 1 / len(sample)))
            axes.stairs(shares, edges, color=colour, linewidth=1.6)
            axes.axvline(float(np.mean(sample)), color=colour, linestyle=":", linewidth=1.4)
    axes.set_xlim(*limits)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("users at or below it" if many else "share of users")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
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


def _short(name: str, longest: int = 34) -> str:
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
