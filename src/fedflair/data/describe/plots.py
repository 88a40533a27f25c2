"""The plots of ``fedflair describe``, each a function from columns to a figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedflair.data.describe.statistics import (
    LabelStatistics,
    Statistics,
    co_occurrence,
    counts_by_user,
    divergence_from_population,
    most_frequent,
)
from fedflair.data.store.packed import IntArray, PartitionColumns

MAX_BARS = 30  # labels of a bar chart or a heat map; FLAIR has 17 coarse ones
INK, MUTED, ACCENT, SECOND, THIRD = "#1f2933", "#7b8794", "#2a6fb0", "#d9822b", "#3c8d5a"
PARTITION_COLOURS = {"train": ACCENT, "val": SECOND, "test": THIRD}


def images_per_user(partitions: dict[str, PartitionColumns]) -> Figure:
    """Share of users with at least so many images, log-log, a line per partition."""
    figure, (axes,) = _figure(7.5, 4.2)
    for name, columns in partitions.items():
        if columns.num_users == 0:
            continue
        sizes, counts = np.unique(np.diff(columns.user_offsets), return_counts=True)
        at_least = counts[::-1].cumsum()[::-1] / columns.num_users
        label = f"{name}: {columns.num_users:,} users, {columns.num_images:,} images"
        axes.plot(sizes, at_least, "o-", markersize=3, linewidth=1.2, color=PARTITION_COLOURS.get(name), label=label)
    axes.set(xscale="log", yscale="log", xlabel="images per user", ylabel="users with at least as many images")
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_formatter(_thousands)
    axes.grid(which="major", color="#e4e7eb")
    axes.legend(frameon=False)
    return figure


def label_frequencies(
    coarse: LabelStatistics, fine: LabelStatistics, num_images: int, beside: dict[str, Any]
) -> Figure:
    """Share of images that carry each coarse label, and fine labels by rank; FLAIR's published shares as marks, where
    ``beside`` has them (see :func:`fedflair.data.describe.comparison.published_beside`)."""
    # A logarithmic axis of nothing cannot be drawn.
    both = bool(fine.images.any())
    figure, (left, *others) = _figure(10.5 if both else 6, 5, 1, 2 if both else 1)
    shown = most_frequent(coarse, MAX_BARS)[::-1]
    names = [coarse.names[label] for label in shown]
    left.barh(range(len(shown)), coarse.images[shown] / max(num_images, 1), color=ACCENT, height=0.7)
    if beside:
        of_coarse = _published_shares(beside, "labels")
        published = [of_coarse.get(name, float("nan")) for name in names]
        left.plot(published, range(len(shown)), "D", color=SECOND, markersize=5, label="FLAIR, published")
    left.set_yticks(range(len(shown)), [plain_text(name) for name in names])
    left.set(xlabel="images with the coarse label")
    left.xaxis.set_major_formatter(_percent)
    left.grid(axis="x", color="#e4e7eb")
    if beside:
        left.legend(frameon=False, loc="lower right")
    if others:
        _by_rank(others[0], fine, num_images, beside)
    return figure


def _by_rank(axes: Axes, fine: LabelStatistics, num_images: int, beside: dict[str, Any]) -> None:
    ranked = np.sort(fine.images[fine.images > 0])[::-1] / max(num_images, 1)
    axes.plot(np.arange(1, len(ranked) + 1), ranked, ".", color=ACCENT, markersize=4, label="this dataset")
    if beside:
        head = sorted(_published_shares(beside, "fine_grained_labels").values(), reverse=True)
        axes.plot(np.arange(1, len(head) + 1), head, "D", color=SECOND, markersize=4, label="FLAIR, published head")
        axes.legend(frameon=False, loc="best")
    axes.set(xscale="log", yscale="log", xlabel="fine label, by rank", ylabel="images with the label")
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_formatter(_thousands)
    axes.grid(color="#e4e7eb")


def labels_per_user(columns: PartitionColumns, num_coarse: int, num_fine: int) -> Figure:
    """Histograms of distinct coarse and fine labels per user."""
    figure, both, kinds = _of_each_kind(num_coarse, num_fine)
    for axes, (kind, num_labels) in zip(both, kinds):
        users, _, _ = counts_by_user(columns, num_labels, fine=kind == "fine")
        distinct = np.bincount(users, minlength=columns.num_users)
        most = int(distinct.max(initial=1))
        bins = [edge - 0.5 for edge in (range(1, most + 2) if most <= 40 else _widening(most))]
        axes.hist(distinct, bins=bins, color=ACCENT, edgecolor="white", linewidth=0.5)
        if len(distinct):
            median = float(np.median(distinct))
            axes.axvline(median, color=INK, linewidth=1, linestyle="--", label=f"median {median:g}")
            axes.legend(frameon=False, loc="upper right")
        axes.set(xlabel=f"distinct {kind} labels of a user", ylabel="users")
        if most > 40:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_thousands)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _of_each_kind(num_coarse: int, num_fine: int) -> tuple[Figure, list[Axes], list[tuple[str, int]]]:
    """A figure with axes for coarse labels and, where there are any, for fine ones; the kinds and how many of each."""
    kinds = [("coarse", num_coarse), *([("fine", num_fine)] if num_fine else [])]
    return *_figure(5.25 * len(kinds), 3.8, 1, len(kinds)), kinds


def _widening(most: int) -> list[int]:
    """Edges of bins for whole numbers from 1 to ``most``, each about a fifth of its first number wide.

    No bin is narrower than the one before: a bin of one number between bins of two would look like a gap.
    """
    edges = [1]
    while edges[-1] <= most:
        edges.append(edges[-1] + max(1, edges[-1] // 5))
    return edges


def co_occurring_labels(columns: PartitionColumns, coarse: LabelStatistics) -> Figure:
    """Of the images with one coarse label (row), the share that also carries another (column)."""
    shown = most_frequent(coarse, MAX_BARS)
    counts = co_occurrence(columns.label_offsets, columns.label_indices, shown)
    shares = counts / np.maximum(np.diag(counts), 1)[:, None]
    np.fill_diagonal(shares, np.nan)
    side = 2.8 + 0.36 * max(len(shown), 3)
    figure, (axes,) = _figure(side + 0.9, side)
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1)
    names = [plain_text(coarse.names[label]) for label in shown]
    axes.set_xticks(range(len(shown)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), names)
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                  color="white" if share > 0.6 else INK)  # fmt: skip
    axes.set(xlabel="… that also carry this one (%)", ylabel="Of the images with this label …")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, shrink=0.7, format=_percent)
    return figure


def divergence(columns: PartitionColumns, num_coarse: int, num_fine: int) -> Figure:
    """Histogram over users of the divergence from the population, and of what IID users would show."""
    figure, both, kinds = _of_each_kind(num_coarse, num_fine)
    edges = np.linspace(0, 1, 41).tolist()
    for axes, (kind, num_labels) in zip(both, kinds):
        natural = counts_by_user(columns, num_labels, fine=kind == "fine")
        dealt = counts_by_user(columns, num_labels, fine=kind == "fine", dealt_at_random=True)
        styles: tuple[tuple[str, tuple[IntArray, IntArray, IntArray], dict[str, Any]], ...] = (
            ("natural users", natural, {"color": ACCENT, "alpha": 0.75}),
            ("the same images dealt at random", dealt, {"color": SECOND, "histtype": "step", "linewidth": 1.8}),
        )
        for label, pairs, style in styles:
            values = divergence_from_population(*pairs, columns.num_users, num_labels)
            axes.hist(values, bins=edges, label=label, **style)
        axes.set(xlabel=f"divergence from the population, {kind} labels (bits)", ylabel="users", xlim=(0, 1))
    handles, names = both[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False)
    return figure


PLOTS: dict[str, tuple[str, str]] = {
    "images_per_user": (
        "Images per user",
        "On both axes logarithmic: a straight line is a power law. Few users hold many of the images.",
    ),
    "label_frequencies": (
        "Label frequencies",
        "The share of images with each coarse label; and with fine labels, from most to least frequent, logarithmic.",
    ),
    "labels_per_user": (
        "Labels per user",
        "How many different labels one user's images carry. A logarithmic axis has bins that widen with it.",
    ),
    "co_occurrence": (
        "Labels that occur together",
        "Rows add up to more than 100 %: an image carries several labels.",
    ),
    "divergence": (
        "How far users are from the population",
        "Jensen-Shannon divergence of a user's label frequencies from everyone's: 0 alike, 1 nothing in common. Users "
        "with few images diverge by chance, which the outline shows; what lies right of it is the users' own.",
    ),
}


def draw_all(
    partitions: dict[str, PartitionColumns],
    everything: PartitionColumns,
    statistics: Statistics,
    *,
    beside: dict[str, Any],
) -> dict[str, bytes]:
    """Every plot as PNG bytes by name, in the order of PLOTS.

    everything: the partitions joined; statistics: of everything; beside: published values, none where it is empty.
    """
    coarse, fine = statistics.coarse, statistics.fine
    figures: dict[str, Callable[[], Figure]] = {
        "images_per_user": lambda: images_per_user(partitions),
        "label_frequencies": lambda: label_frequencies(coarse, fine, everything.num_images, beside),
        "labels_per_user": lambda: labels_per_user(everything, len(coarse.names), len(fine.names)),
        "co_occurrence": lambda: co_occurring_labels(everything, coarse),
        "divergence": lambda: divergence(everything, len(coarse.names), len(fine.names)),
    }
    return {name: _png(figures[name]()) for name in PLOTS}


def plain_text(name: str, longest: int = 24) -> str:
    """A label for a plot: cut to length, and no dollar sign starts a formula."""
    cut = name if len(name) <= longest else name[: longest - 1] + "…"
    return "".join(c if c.isprintable() else "·" for c in cut).replace("$", r"\$")


def _published_shares(beside: dict[str, Any], kind: str) -> dict[str, float]:
    everything = beside["all"]
    return {name: images / everything["images"] for name, images in everything[kind]["images_per_label"].items()}


def _percent(value: float, _: float) -> str:
    return f"{100 * value:.4g}%"


def _thousands(value: float, _: float) -> str:
    return f"{value:,.0f}"


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure in inches, outside pyplot's global list, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    all_axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(colors=INK, labelsize=9)
        axes.set_axisbelow(True)
    return figure, all_axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the page and the tables show it as it is.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
