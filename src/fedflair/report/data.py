"""What a report knows: runs read from their folders, grouped by what is compared (a run, or a point of a sweep)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedflair.errors import DataError
from fedflair.privacy.ledger import coverage
from fedflair.privacy.mechanisms.noise import noise_over_bound
from fedflair.report import promises
from fedflair.runs.environment import Entry, read_environment
from fedflair.runs.folder import (
    RunFolder,
    read_config,
    read_label_ap,
    read_rows,
    read_summary,
    read_test_details,
    read_users,
)
from fedflair.runs.provenance import read_provenance
from fedflair.runs.shapes import sweep_problem
from fedflair.runs.tensors import num_entries
from fedflair.sweep.results import RESULTS
from fedflair.system.json_text import read_json

MOST_POINTS = 200


@dataclass(frozen=True)
class Run:
    """What the report knows of a run: all of it read from its folder. summary: None where the run has not ended.

    environment: what made it, an entry each time it was begun or gone on with; none of a run of an earlier version.
    privacy, local_privacy: the mechanisms as the run described them, in its summary, or before that in its ledger and
        its options; None without one.
    left_out: metrics on test without each group of its users (``metrics/left_out.py``). examples: by kind, photographs
        in which the model is surest (``evaluation/examples.py``). Both empty of a run that has not ended, or is older.
    num_parameters: that are trained, sent and noised. store: the fingerprint of its store. None where nothing says.
    """

    name: str
    summary: Mapping[str, Any] | None
    rows: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    label_ap: Mapping[str, float | None]
    users: Mapping[str, Sequence[Mapping[str, Any]]]
    privacy: Mapping[str, Any] | None
    local_privacy: Mapping[str, Any] | None
    environment: Sequence[Entry] = ()
    left_out: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    num_parameters: int | None = None
    store: str | None = None

    @property
    def num_rounds(self) -> int:
        return int(self.rows[-1]["round"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        return float(self.summary["seconds"]) if self.summary else self.total("train/seconds") or 0.0

    @property
    def is_private(self) -> bool:
        """Whether an epsilon is promised, which the run's metrics are then not covered by."""
        return coverage.is_promised(self.privacy, self.local_privacy)

    @property
    def noise_over_bound(self) -> float | None:
        """The length of the noise on a round's mean update over the clipping bound; None without noise, or unknown.

        As the first round had it, so as the run said it before.
        """
        if self.num_parameters is None:
            return None
        row: Mapping[str, Any] = next((row for row in self.rows if "privacy/noise_std" in row), {})
        of_round = {
            "noise_std": row.get("privacy/noise_std"),
            "clipping_bound": row.get("privacy/clipping_bound"),
            "cohort_size": self.options.get("cohort_size"),
        }
        facts = self.privacy or {}
        known = of_round if None not in of_round.values() else facts
        return noise_over_bound({**known, "order": facts.get("order", 2.0)}, self.num_parameters)

    def total(self, column: str) -> float | None:
        """Sum over the rounds of a column of the metrics; None where no round has it."""
        values = [row[column] for row in self.rows if row.get(column) is not None]
        return float(sum(values)) if values else None


@dataclass(frozen=True)
class Group:
    """One line of the report: runs that differ in their seed only."""

    name: str
    runs: Sequence[Run]

    @property
    def finished(self) -> Sequence[Run]:
        return [run for run in self.runs if run.summary is not None]

    def test(self, metric: str) -> list[float]:
        """The metric on test of each finished run."""
        return numbers((run.summary or {})["test"].get(metric) for run in self.finished)

    def values(self, of: Callable[[Run], float | None]) -> list[float]:
        """What ``of`` says of each run that has it."""
        return numbers(of(run) for run in self.runs)


def numbers(values: Any) -> list[float]:
    """Those of the values that are numbers."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """The groups in run folders and sweep folders. Raises DataError where a folder is neither, or is damaged."""
    groups: list[Group] = []
    times = Counter(path.name for path in set(paths))
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: no such run folder; name folders that 'fedflair train' or 'fedflair sweep' wrote")
        if (path / RESULTS).is_file():
            groups += _read_sweep(path, prefix=f"{path.name}: " if len(paths) > 1 else "")
        else:
            run = read_run(path, str(path) if times[path.name] > 1 else path.name)
            groups.append(Group(run.name, [run]))
    return groups


def read_run(path: Path, name: str) -> Run:
    """Reads one run folder, finished or not. Raises DataError where it is none, or is damaged."""
    folder = RunFolder(path)
    options, rows = read_config(folder), read_rows(folder)
    provenance = read_provenance(folder)
    if provenance is not None:
        provenance.check_written(options, folder)
    summary = read_summary(folder) if folder.summary.is_file() else None
    if summary is None:
        central, local = promises.central_so_far(folder.path, options), promises.local_so_far(options)
    else:
        central, local = summary["privacy"], summary.get("local_privacy")
    details = read_test_details(folder)
    return Run(
        name,
        summary,
        rows,
        options,
        read_label_ap(folder),
        read_users(folder),
        central,
        local,
        read_environment(folder),
        details.get("left_out", {}),
        details.get("examples", {}),
        _num_parameters(folder, summary),
        None if provenance is None else provenance.store,
    )


def _num_parameters(folder: RunFolder, summary: Mapping[str, Any] | None) -> int | None:
    """From the summary, or as long as there is none from a model that was saved."""
    said = (summary or {}).get("num_parameters")
    if isinstance(said, int):
        return said
    return next((n for path in (folder.best, folder.last) if (n := num_entries(path, "parameters")) is not None), None)


def _read_sweep(path: Path, prefix: str) -> list[Group]:
    remedy = "not the results of a sweep; the same sweep command writes it again"
    results = read_json(path / RESULTS, remedy)
    if wrong := sweep_problem(results):
        raise DataError(f"{path / RESULTS}: {remedy} ({wrong})")
    groups = []
    for point in results["points"]:
        found = [(path / run["run"], run["seed"]) for run in point["runs"] if (path / run["run"]).is_dir()]
        runs = [read_run(folder, f"{prefix}{point['point']}, seed {seed}") for folder, seed in found]
        if runs:
            groups.append(Group(f"{prefix}{point['point']}", runs))
    return groups


def summaries(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Each run's name, group and summary; of a run that has not ended, its rounds so far."""
    return [
        {"run": run.name, "group": group.name, **(run.summary or _so_far(run))}
        for group in groups
        for run in group.runs
    ]


def _so_far(run: Run) -> dict[str, Any]:
    known = {"privacy": run.privacy, "local_privacy": run.local_privacy}
    return {"unfinished": True, "rounds": run.num_rounds, **{k: dict(v) for k, v in known.items() if v is not None}}


def curve(group: Group, column: str) -> tuple[list[float], list[float], list[float]]:
    """(rounds, means, standard deviations) over the group's runs, where all that have the column have a value.

    A run of more than 200 values is averaged over stretches of rounds.
    """
    series = []
    for run in group.runs:
        points = [(row["round"], row[column]) for row in run.rows if row.get(column) is not None]
        if points:
            stretches = np.array_split(np.array(points, dtype=np.float64), min(len(points), MOST_POINTS))
            series.append({float(part[-1, 0]): float(part[:, 1].mean()) for part in stretches})
    rounds = sorted(set.intersection(*(set(one) for one in series))) if series else []
    values = np.array([[one[round_] for round_ in rounds] for one in series])
    if not rounds:
        return [], [], []
    deviations = values.std(axis=0, ddof=1) if len(series) > 1 else np.zeros(len(rounds))
    return rounds, values.mean(axis=0).tolist(), deviations.tolist()


def label_means(group: Group) -> dict[str, float]:
    """AP on test of each label, mean over the group's finished runs; labels without positives are left out."""
    found: dict[str, list[float]] = {}
    for run in group.finished:
        for name, value in run.label_ap.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
