#!/usr/bin/env python
"""What to train, with which noise, for a promise to FLAIR's own users: the tables and the figure of docs/choosing.md.

What a mechanism adds is computed for FLAIR's 5,000 rounds and 41,131 training users, epsilon 2 at delta 1e-6; what is
left of a model under it is measured on the synthetic twin (``benchmarks/private_choice.yaml``: 40 rounds, three seeds).
The sweep goes on where it was stopped. Writes choice.png into the output folder, and prints the tables.

    fedflair synthesize --scale full --num_users 6000 --output twin.hdf5
    python perf/private_choice.py --data_path twin.hdf5 --output private_choice
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from fedflair.privacy.contract import PrivacyOptions
from fedflair.privacy.mechanisms.auto import CHOSEN_AMONG, Candidate, candidates, chosen
from fedflair.sampling import SamplerDescription
from fedflair.sweep.results import plus_minus

POPULATION, ROUNDS, EPSILON, DELTA = 41_131, 5_000, 2.0, 1e-6
COHORTS = (200, 5_000)
SWEEP = Path(__file__).parents[1] / "benchmarks" / "private_choice.yaml"
# Of ResNet-18 with 17 outputs, FLAIR's network.
TRAINED = {"all": 11_185_233, "norm": 9_600 + 8_721, "film": 9_600 + 8_721, "head": 8_721}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("private_choice"))
    options = parser.parse_args()
    for cohort_size in COHORTS:
        _noise(cohort_size)
    results = _swept(options.data_path.resolve(), options.output.resolve())
    _scores(results, options.output)
    _draw(results, options.output / "choice.png")
    print(f"figure: {options.output / 'choice.png'}")


def _noise(cohort_size: int) -> None:
    """What each mechanism adds, for cohorts of that many of FLAIR's training users, drawn in secret or in turn."""
    asked = PrivacyOptions("auto", epsilon=EPSILON, delta=DELTA)
    found = candidates(asked, [SamplerDescription(kind, cohort_size, POPULATION) for kind in CHOSEN_AMONG], ROUNDS)
    best = chosen(found)
    print(f"\ncohorts of {cohort_size:,} of {POPULATION:,}, {ROUNDS:,} rounds, epsilon {EPSILON:g} at delta {DELTA:g}")
    print(f"noise over bound of a round, and of running sums{'':22} {''.join(f'{name:>18}' for name in TRAINED)}")
    for one in found:
        cells = [
            f"{_over(one.round_noise, p, cohort_size)}, {_over(one.error, p, cohort_size)}" for p in TRAINED.values()
        ]
        print(f"{'* ' if one is best else '  '}{_words(one):68} {''.join(f'{cell:>18}' for cell in cells)}")


def _words(one: Candidate) -> str:
    return f"{one.mechanism}, {one.sampling}, {one.num_buffers} vectors kept"


def _over(noise: float, num_parameters: int, cohort_size: int) -> str:
    """The length of noise of that deviation on a mean update, over the bound."""
    return f"{noise * math.sqrt(num_parameters) / cohort_size:.2g}"


def _swept(store: Path, output: Path) -> dict[str, Any]:
    """Runs what has not been run, from the folder of the networks, and reads the sweep's results."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fedflair", "sweep", "--sweep_config", SWEEP.name]
    command += ["--data_path", str(store), "--output", str(output), "--json"]
    done = subprocess.run(command, cwd=SWEEP.parent, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{SWEEP.name}: ended with status {done.returncode}; see above")
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def _points(results: dict[str, Any]) -> dict[str, dict[int, dict[str, Any]]]:
    """By what is trained and the cohort whose noise it is: the point, and its noise over bound as its runs said it."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for point in results["points"]:
        found.setdefault(point["setting"], {})[point["options"]["noise_cohort_size"]] = point
    return {name: found[name] for name in TRAINED}


def _scores(results: dict[str, Any], output: Path) -> None:
    heads = "".join(f"cohorts of {size:,}".rjust(24) for size in COHORTS)
    print(f"\nmacro AP on test of the twin, noise over bound    {heads}")
    for name, by_cohort in _points(results).items():
        cells = []
        for size in COHORTS:
            point = by_cohort[size]
            summary = json.loads((output / point["runs"][0]["run"] / "summary.json").read_text())
            cells.append(f"{plus_minus(point['test']['macro_ap'])}, {_run_noise(summary):.2g}")
        print(f"  {name:46} {''.join(f'{cell:>24}' for cell in cells)}")


def _run_noise(summary: dict[str, Any]) -> float:
    """Noise on a round's mean update over the clipping bound."""
    privacy = summary["privacy"]
    noise = math.sqrt(summary["num_parameters"]) * privacy["noise_std"] / privacy["cohort_size"]
    return float(noise / privacy["clipping_bound"])


def _draw(results: dict[str, Any], path: Path) -> None:
    """Macro AP over seeds, by what is trained, for the noise of both cohorts."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    points = _points(results)
    for offset, (size, colour) in enumerate(zip(COHORTS, ("#d1603d", "#1f6f8b"))):
        scores = [points[name][size]["test"]["macro_ap"] for name in points]
        places = [k + 0.16 * (2 * offset - 1) for k in range(len(points))]
        axis.errorbar(
            places,
            [score["mean"] for score in scores],
            yerr=[score["std"] or 0.0 for score in scores],
            fmt="o",
            color=colour,
            capsize=3,
            label=f"noise of cohorts of {size:,}",
        )
    axis.set_xticks(range(len(points)), [f"{name} trained" for name in points])
    axis.set_ylabel("macro AP on test, three seeds")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
