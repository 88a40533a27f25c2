"""The picture of a question and its answer: epsilon against rounds, and noise against cohort size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedflair.privacy.accounting.accountants import calibrate
from fedflair.privacy.accounting.question import Question, over_rounds
from fedflair.privacy.accounting.shown import show
from fedflair.system.files import replacing


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
    own = question.sampling_rate
    rates = [own * 2.0**k for k in range(-2, 3) if own * 2.0**k * question.min_separation <= 1]
    events = [replace(question, sampling_rate=rate).event(0.0) for rate in rates]
    multipliers = [calibrate(event, epsilon, question.delta, question.accountant) for event in events]
    noises = [multiplier / rate for multiplier, rate in zip(multipliers, rates)]
    reference = noises[rates.index(own)]
    return rates, [noise / reference for noise in noises]
