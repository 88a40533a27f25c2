"""What a sweep costs besides its runs: `sweep` over finished points, and the report over it.

    python perf/sweep.py                      # 50, 100 and 200 points: linear, and under ten seconds
    python perf/sweep.py --points 200 --rounds 1000

One run is trained; the other points are copies of its folder, each with the options of its own. Wall time and
processor time are those of the whole command, as a user waits for it.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import yaml

from fedflair.config.options import build_config
from fedflair.config.train_config import TrainConfig
from fedflair.data.synthetic.synthesize import synthesize
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import plain_options, read_provenance, write_provenance
from fedflair.sweep.plan import plan_sweep, sweep_spec
from fedflair.training.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--rounds", type=int, default=100, help="of each run, every tenth of which is evaluated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = one_run(folder, arguments.rounds)
        print(f"{'points':>7}{'sweep':>24}{'report':>24}")
        for count in arguments.points:
            place = folder / str(count)
            finished_sweep(place, config, count)
            swept = timed("sweep", "--sweep_config", str(place / "sweep.yaml"), "--output", str(place / "sweep"))
            told = timed("report", str(place / "sweep"), "--output", str(place / "report.html"))
            print(f"{count:>7}{swept:>24}{told:>24}", flush=True)


def one_run(folder: Path, num_rounds: int) -> TrainConfig:
    """Trains the run that all points are copies of."""
    store = folder / "store.hdf5"
    synthesize(output=store, num_users=10, seed=1)
    options = {"data_path": store, "model": "small_cnn", "pretrained": False, "image_size": 32, "cohort_size": 2}
    options |= {"central_num_iterations": num_rounds, "evaluation_frequency": 10, "local_num_epochs": 1}
    options |= {"run": folder / "one", "num_threads": 1, "device": "cpu"}
    config = build_config(options, "perf/sweep.py")
    train(config)
    return config


def finished_sweep(place: Path, config: TrainConfig, count: int) -> None:
    """A sweep over ``count`` learning rates, all of whose runs are done."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in config.as_dict().items()}
    for name in ("run", "resume", "seed", "learning_rate"):
        options.pop(name)
    place.mkdir()
    grid = {"learning_rate": [round(0.001 * (k + 1), 4) for k in range(count)]}
    (place / "sweep.yaml").write_text(yaml.safe_dump({"options": options, "grid": grid}))
    for trial in plan_sweep(sweep_spec({"sweep_config": str(place / "sweep.yaml")})):
        run = place / "sweep" / "runs" / trial.name
        shutil.copytree(place.parent / "one", run)
        own = {name: value for name, value in trial.config.as_dict().items() if name not in ("run", "resume")}
        (run / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        belongs = read_provenance(RunFolder(run))
        assert belongs is not None
        write_provenance(RunFolder(run), replace(belongs, options=plain_options(trial.config)))


def timed(*words: str) -> str:
    """Seconds of a command, by the clock and of processors."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "fedflair.cli", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{time.monotonic() - started:.1f} s ({spent:.1f} s busy)"


if __name__ == "__main__":
    main()
