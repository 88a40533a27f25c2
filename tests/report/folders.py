"""Run folders and sweep folders as training leaves them, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import outcome_of, write_results


def write_run(folder: Path, macro_ap: float, privacy: dict[str, object] | None = None, **more: Any) -> Path:
    """A run folder of two rounds, as training leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("cohort_size: 3\ncentral_num_iterations: 2\nrun_note: <b>bold</b>\n")
    rows = [
        {"round": r, "train/loss": 1 / r, "val/macro_ap": macro_ap * r / 2, "val/mean_prevalence": 0.2}
        | {"train/seconds": 45.0, "train/num_examples": 10, "train/bytes_up": 2e6, "train/simulated_seconds": 1800}
        for r in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = {"macro_ap": macro_ap, "micro_ap": 0.5, "macro_f1": 0.4, "loss": 0.3, "mean_prevalence": 0.2}
    summary = {"setting": "flair", "rounds": 2, "seconds": 90.0, "val": test, "test": test, "privacy": privacy}
    (folder / "summary.json").write_text(json.dumps(summary))
    label_ap = more.get("label_ap", {"animal": macro_ap + 0.1, "food": macro_ap - 0.1, "music": None})
    (folder / "label_ap.json").write_text(json.dumps(label_ap))
    return folder


def write_sweep(folder: Path) -> Path:
    """A sweep of one point with two seeds, whose macro AP is 0.5 and 0.7, and one that never ran."""
    config = TrainConfig()
    trials = [Trial("rate=1", None, {"learning_rate": 1.0}, seed, f"rate=1-seed{seed}", config) for seed in (0, 1)]
    trials.append(Trial("rate=2", None, {"learning_rate": 2.0}, 0, "rate=2-seed0", config))
    for trial, macro_ap in zip(trials, (0.5, 0.7)):
        write_run(folder / "runs" / trial.name, macro_ap)
    runs = [RunFolder(folder / "runs" / trial.name) for trial in trials]
    write_results(folder, trials, [outcome_of(run, folder / "absent.log") for run in runs])
    return folder
