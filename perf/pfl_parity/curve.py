"""One run of one tool, drawn as that tool draws: prints a line of JSON for each evaluation, and one of test.

``python -m pfl_parity.curve TOOL SETTING SEED STORE PFL_FILE``, which ``perf/parity_curves.py`` starts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.train import train

Tell = Callable[[dict[str, float]], None]

SETTINGS: dict[str, dict[str, object]] = {
    "natural": {"dataset": "flair"},
    "iid": {"dataset": "flair_iid", "mean_datapoints_per_user": 8},
    "private": {"dataset": "flair", "central_privacy_mechanism": "gaussian_moments_accountant"},
}


def config_of(setting: str, seed: int, store: Path) -> TrainConfig:
    """The same options for both tools."""
    private = {
        "central_privacy_clipping_bound": 0.1,
        "central_delta": 5e-8,
        "population": 10**7,
        "noise_cohort_size": 5000,
    }
    return TrainConfig.of(
        data_path=store,
        seed=seed,
        like="pfl",
        pretrained=False,
        image_size=32,
        cohort_size=20,
        central_num_iterations=60,
        evaluation_frequency=10,
        local_learning_rate=0.03,
        local_num_epochs=2,
        local_batch_size=16,
        central_lr_num_warmup_iterations=5,
        device="cpu",
        num_threads=1,
        **SETTINGS[setting],
        **(private if setting == "private" else {}),
    )


def own(config: TrainConfig, pfl_file: Path, tell: Tell) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = train(config.changed(run=Path(folder) / "run"))
        for row in read_rows(RunFolder(run)):
            if "val/macro_ap" in row:
                tell({"round": row["round"], "macro_ap": row["val/macro_ap"], "loss": row["val/loss"]})


def main(tool: str, setting: str, seed: str, store: str, pfl_file: str) -> None:
    # What is printed on the way must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    config = config_of(setting, int(seed), Path(store))

    def tell(row: dict[str, float]) -> None:
        print(json.dumps(row), file=answers, flush=True)

    if tool == "fedflair":
        own(config, Path(pfl_file), tell)
    else:
        # Not to be imported by who only runs fedflair: pfl may not be there.
        from pfl_parity.pfl_run import run

        run(config, Path(pfl_file), tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
