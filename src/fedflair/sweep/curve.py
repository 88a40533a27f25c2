"""The privacy-utility curve of a sweep over epsilons: what each budget came to, and how good its models are.

SWEEP/
    curve.csv    a line a point: budget, both epsilons with their marks, noise, scores
    curve.png, curve.pdf    score against epsilon, with bands
    curve.tex    the table, for LaTeX with booktabs
    methods.txt  a paragraph for a paper
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedflair.privacy.accounting import shown
from fedflair.privacy.ledger import coverage
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.sweep.budgets import NONE
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import Outcome, plus_minus, spread, words_of
from fedflair.system.csv_text import csv_cell

# Of a table: a finished seed of each, whatever the metric is.
_COLUMNS = ("epsilon", "seeds", "noise / bound")


@dataclass(frozen=True)
class Scores:
    """Over the finished seeds of a point: each one's score, and mean and sample standard deviation."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return spread(self.values)["mean"]

    @property
    def std(self) -> float | None:
        return spread(self.values)["std"]


@dataclass(frozen=True)
class Point:
    """A budget of a curve. curve: its name, empty where there is one. asked: the budget.

    facts: what the mechanism says of itself, of the run that promises least; None without one, or before one is done.
    noise: how long the noise on a round's mean update is, in clipping bounds; the mean over seeds.
    """

    curve: str
    asked: float | Literal["none"]
    trials: tuple[Trial, ...]
    facts: shown.Facts | None
    noise: float | None
    val: Scores
    test: Scores

    @property
    def num_done(self) -> int:
        return len(self.test.values)

    @property
    def epsilon(self) -> float | None:
        """Of the deployment where one is simulated, else of the run; None without a mechanism, inf for no promise."""
        return None if self.facts is None else shown.figures(self.facts)[0]

    @property
    def told(self) -> str:
        """Its epsilon with its marks."""
        if self.asked == NONE:
            return "none"
        return f"{self.asked:g}, not known yet" if self.facts is None else shown.cell(self.facts)


@dataclass(frozen=True)
class Curve:
    """The points of a sweep, by curve and budget. metric: what is scored: the one that chooses the best model."""

    metric: str
    points: tuple[Point, ...]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(point.curve for point in self.points))

    def of(self, name: str) -> list[Point]:
        return [point for point in self.points if point.curve == name]

    @property
    def delta(self) -> float | None:
        """Of all private points; None where they have several, or none is known."""
        deltas = {point.facts.get("delta") for point in self.points if point.facts is not None}
        return deltas.pop() if len(deltas) == 1 else None

    @property
    def notes(self) -> list[str]:
        """What the marks mean, and what no epsilon covers."""
        facts = [point.facts for point in self.points]
        return [*shown.legend(*facts), coverage.TUNING] if any(facts) else []


def curve_of(trials: Sequence[Trial], outcomes: Sequence[Outcome], folder: Path) -> Curve:
    """The curve of the runs in a sweep's folder, as far as they are done; its points by curve, then by budget."""
    metric = trials[0].config.evaluation.best_metric
    runs: dict[str, list[tuple[Trial, Outcome]]] = {}
    for trial, outcome in zip(trials, outcomes):
        runs.setdefault(trial.point, []).append((trial, outcome))
    points = [_point(metric, pairs, folder) for pairs in runs.values()]
    curves = list(dict.fromkeys(point.curve for point in points))
    points.sort(key=lambda point: (curves.index(point.curve), math.inf if point.asked == NONE else point.asked))
    return Curve(metric, tuple(points))


def table_of_curve(curve: Curve) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as text; a column for the curve's name where there are several."""
    several = len(curve.names) > 1
    score = words_of(curve.metric)
    headings = [*_COLUMNS, f"test {score}", f"val {score}"]
    rows = []
    for point in curve.points:
        row = [
            point.told,
            f"{point.num_done}/{len(point.trials)}",
            "-" if point.noise is None else f"{point.noise:.3g}",
            plus_minus(spread(point.test.values)),
            plus_minus(spread(point.val.values)),
        ]
        rows.append([point.curve, *row] if several else row)
    return (["curve", *headings] if several else headings), rows


def curve_csv(curve: Curve) -> str:
    """A line a point; numbers whole, epsilons rounded up and with their marks in a column of their own."""
    rows = [_csv_row(curve.metric, point) for point in curve.points]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _csv_row(metric: str, point: Point) -> dict[str, Any]:
    facts = point.facts or {}
    whole, own = shown.figures(facts) if facts else (None, None)
    return {
        "curve": point.curve,
        "asked": point.asked,
        "epsilon": "" if whole is None else shown.show(whole),
        "run_epsilon": "" if own is None else shown.show(own),
        "epsilon_marks": shown.marks_of(point.facts),
        "delta": facts.get("delta", ""),
        "mechanism": facts.get("mechanism", "none" if point.asked == NONE else ""),
        "noise_multiplier": facts.get("noise_multiplier", ""),
        "noise_over_bound": "" if point.noise is None else point.noise,
        "num_seeds": point.num_done,
        "metric": metric,
        **_scores("test", point.test),
        **_scores("val", point.val),
    }


def _scores(partition: str, scores: Scores) -> dict[str, Any]:
    values = scores.values
    facts = {"mean": scores.mean, "std": scores.std, "min": min(values, default=None), "max": max(values, default=None)}
    return {f"{partition}_{name}": "" if value is None else value for name, value in facts.items()}


def _point(metric: str, pairs: Sequence[tuple[Trial, Outcome]], folder: Path) -> Point:
    first, done = pairs[0][0], [(trial, outcome) for trial, outcome in pairs if outcome.status == "done"]
    asked = first.asked
    assert asked is not None, "a sweep without epsilons has no curve"
    size = first.config.cohort.cohort_size
    found = [_noise(RunFolder(folder / "runs" / trial.name), outcome, size) for trial, outcome in done]
    noises = [noise for noise in found if noise is not None]
    return Point(
        first.curve,
        asked,
        tuple(trial for trial, _ in pairs),
        shown.worst(outcome.privacy for _, outcome in done),
        sum(noises) / len(noises) if noises else None,
        _values_of(metric, [outcome.val for _, outcome in done]),
        _values_of(metric, [outcome.test for _, outcome in done]),
    )


def _values_of(metric: str, rows: Sequence[Any]) -> Scores:
    found = [row.get(metric) for row in rows]
    return Scores(tuple(float(value) for value in found if value is not None and math.isfinite(value)))


def _noise(run: RunFolder, outcome: Outcome, cohort_size: int) -> float | None:
    """The length of a run's noise on a round's mean update over the clipping bound, as its first round had it."""
    if outcome.privacy is None or outcome.num_parameters is None or not shown.promises(outcome.privacy):
        return None
    # Here, as it loads torch, and most sweeps have no curve.
    from fedflair.privacy.mechanisms.noise import noise_over_bound

    row = next((row for row in read_rows(run) if "privacy/noise_std" in row), {})
    std, bound = row.get("privacy/noise_std"), row.get("privacy/clipping_bound")
    of_round = {"noise_std": std, "clipping_bound": bound, "cohort_size": cohort_size}
    known = of_round if None not in (std, bound) else outcome.privacy
    return noise_over_bound({**known, "order": outcome.privacy.get("order", 2.0)}, outcome.num_parameters)
