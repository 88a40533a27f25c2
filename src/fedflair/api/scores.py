"""A run's model, scored on a partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedflair.api.checked import checked, path_of
from fedflair.api.run import Run
from fedflair.evaluation.run import score_run
from fedflair.privacy.ledger import coverage
from fedflair.system.terminal import one_line


@dataclass(frozen=True, repr=False)
class Scores:
    """metrics: by name, such as ``macro_ap``. label_ap: AP by label; None where the label has no positives.

    facts: run, partition and checkpoint, and where a run promises an epsilon that it does not cover these numbers.
    """

    metrics: Mapping[str, float]
    label_ap: Mapping[str, float | None]
    facts: Mapping[str, str]

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name} {self.metrics[name]:.4f}" for name in ("macro_ap", "micro_ap") if name in self.metrics
        )
        what = f"{self.facts['checkpoint']} model of {one_line(self.facts['run'])} on {self.facts['partition']}"
        uncovered = "; no epsilon covers these" if coverage.FIELD in self.facts else ""
        return f"<{what}: {found}, {len(self.label_ap):,} labels{uncovered}>"


def evaluate(
    run: Run | str | Path,
    partition: str = "test",
    *,
    checkpoint: Literal["best", "last"] = "best",
    data_path: str | Path | None = None,
    metrics: Literal["exact", "pfl"] = "exact",
) -> Scores:
    """Scores a run's model on every image of a partition, as ``fedflair evaluate`` does; nothing is written.

    partition: train, val or test. checkpoint: the model that was best on val, or that of the last round saved.
    data_path: another store with the same labels; the run's own if not given. metrics: exact, or as pfl-research has
    them. Raises ConfigError and DataError, naming the argument or the file.
    """
    given = checked(
        _options, {"partition": partition, "checkpoint": checkpoint, "data_path": data_path, "metrics": metrics}
    )
    folder = run.path if isinstance(run, Run) else path_of("run", run)
    found = score_run(folder, given["partition"], given["checkpoint"], given["data_path"], given["metrics"])
    return Scores(dict(found.metrics), dict(found.label_ap), dict(found.facts))


def _options(
    *,
    partition: Literal["train", "val", "test"],
    checkpoint: Literal["best", "last"],
    data_path: Path | None,
    metrics: Literal["exact", "pfl"],
) -> None:
    """What ``evaluate`` takes, by type."""
