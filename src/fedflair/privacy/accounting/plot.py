"""Pictures of a question and its answer: epsilon against rounds, noise against cohort size, and the trade-off curve."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from fedflair.errors import DataError
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.accounting.question import Question, over_rounds
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.accounting.trade_off import TradeOff, points_of_curve
from fedflair.system.files import replacing, write_atomically


def draw(question: Question, noise_multiplier: float, cohort_size: int | None, path: Path) -> None:
    """Writes a PNG. The right panel keeps epsilon and moves the cohort: noise on the mean falls faster than 1/cohort.

    Raises DiskError where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = over_rounds(question, noise_multiplier, points=14)
    shown = [(row["rounds"], row["epsilon"]) for row in rows if row["epsilon"] is not None]
    left.plot([x for x, _ in shown], [y for _, y in shown], marker="o")
    left.set(xscale="log", yscale="log", xlabel="rounds", ylabel=f"epsilon at delta {question.delta:g}")
    left.set_title(f"noise multiplier {noise_multiplier:.4g}")
    target = rows[-1]["epsilon"]
    if target:
        sizes, noises = noise_by_cohort(question, target)
        unit = cohort_size or 1
        cohorts = [rate / question.sampling_rate * unit for rate in sizes]
        right.plot(cohorts, noises, marker="o")
        label = "cohort size" if cohort_size else "cohort size, relative"
        right.set(xscale="log", yscale="log", xlabel=label, ylabel="noise on the mean / clipping bound, relative")
        right.set_title(f"epsilon {show(target)}, same population")
        # On a logarithmic axis of two octaves matplotlib writes its own ticks over one another.
        right.set_xticks(cohorts, [f"{size:g}" for size in cohorts])
        right.set_xticks([], minor=True)
    for axes in (left, right):
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


def noise_by_cohort(question: Question, epsilon: float) -> tuple[list[float], list[float]]:
    """(sampling rates, noise on the mean at equal epsilon, 1 at the question's own rate): cohorts of 1/4 to 4 times."""
    sized = [found for k in range(-2, 3) if (found := question.resized(2.0**k)) is not None]
    rates = [one.sampling_rate for one in sized]
    multipliers = [calibrate(one.event(0.0), epsilon, one.delta, one.accountant) for one in sized]
    noises = [multiplier / rate for multiplier, rate in zip(multipliers, rates)]
    reference = noises[rates.index(question.sampling_rate)]
    return rates, [noise / reference for noise in noises]


def draw_curve(curve: TradeOff, epsilon: float, delta: float, path: Path) -> None:
    """Writes the curve's points as CSV and its picture as PNG, under the path's name with these endings.

    epsilon: what holds at ``delta``, drawn beside it. Raises DataError for a name that is none, DiskError where a file
    cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not path.name:
        raise DataError(f"{path}: a folder, and no name of a file; name a file in it")
    name = path.stem if path.suffix.lower() in (".csv", ".png") else path.name
    type_1, type_2 = points_of_curve(curve)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["type_1_error", "type_2_error"])
    writer.writerows(zip(type_1.tolist(), type_2.tolist()))
    write_atomically(path.with_name(f"{name}.csv"), text.getvalue())
    one = np.full(1, min(epsilon, 600.0))
    pair = TradeOff(one, np.full(1, delta), None).type_2(type_1)
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, scale in zip(figure.subplots(1, 2), ("linear", "log")):
        axes.plot(type_1, 1 - type_1, color="0.7", linewidth=1, label="a guess at random")
        axes.plot(type_1, type_2, label="whoever sees everything released, at best")
        axes.plot(type_1, pair, linestyle="--", linewidth=1, label=f"epsilon {show(epsilon)} at delta {delta:g} alone")
        axes.set(xscale=scale, yscale=scale, xlabel="type I error", ylabel="type II error")
        low = 1e-3 if scale == "log" else 0.0
        axes.set_xlim(low, 1)
        axes.set_ylim(low, 1)
        axes.set_aspect("equal")
    axes.legend(loc="lower left", fontsize=8)
    with replacing(path.with_name(f"{name}.png")) as file:
        figure.savefig(file, format="png", dpi=120)
