#!/usr/bin/env python
"""Whether runs of fedflair and pfl-research can be told apart, each drawing as it draws: learning curves over seeds.

ResNet-18 from scratch at 32 pixels, 60 rounds of 20 users on the synthetic mini twin: natural users, IID users, and
natural users with central privacy. Both are scored by the same metric after the same numbers of updates. Finished runs
are kept in the output folder, so that more seeds can be added. Writes curves.json and curves.png there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from pfl_parity.curve import SETTINGS
from pfl_parity.telling_apart import Curves, told_apart

from fedflair.data.preparation.layouts import write_layout
from fedflair.data.store.packed import open_store
from fedflair.data.synthetic.synthesize import synthesize

TOOLS = {"fedflair": "#1f6f8b", "pfl": "#d1603d"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path("parity"))
    parser.add_argument("--seeds", type=int, default=3, help="Runs of each tool and setting.")
    parser.add_argument("--more", type=int, default=0, help="Further ones of natural users alone.")
    options = parser.parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    store, pfl_file = _files(output)
    seeds = {setting: options.seeds + (options.more if setting == "natural" else 0) for setting in SETTINGS}
    for seed in range(options.seeds + options.more):
        for setting in (name for name in SETTINGS if seed < seeds[name]):
            for tool in TOOLS:
                _run(tool, setting, seed, output, store, pfl_file)
    curves = {setting: {tool: _curves(output, tool, setting, seeds[setting]) for tool in TOOLS} for setting in SETTINGS}
    rounds = [row["round"] for row in _rows(output, "fedflair", "natural", 0)]
    _draw(curves, rounds, output / "curves.png")
    print(f"{'':9} {'':>13} {'fedflair':>15} {'pfl':>15} {'difference, 95 %':>18} {'Welch p':>8} {'permutation p':>14}")
    for setting, by_tool in curves.items():
        for what, of in (("last round", lambda c: c[:, -1]), ("mean of curve", lambda c: c.mean(1))):
            left, right = (of(by_tool[tool]) for tool in TOOLS)
            apart = told_apart(left, right)
            cells = [f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" for values in (left, right)]
            print(
                f"{setting:9} {what:>13} {cells[0]:>15} {cells[1]:>15} "
                f"{apart.difference:+9.4f} ± {apart.half_width:.4f} {apart.welch:8.2f} "
                f"{apart.permutation:8.2f} (>= {apart.smallest:.2f})"
            )
    (output / "curves.json").write_text(
        json.dumps({s: {t: c.tolist() for t, c in by.items()} for s, by in curves.items()}, indent=2) + "\n"
    )


def _files(output: Path) -> tuple[Path, Path]:
    store, pfl_file = output / "mini.hdf5", output / "mini_pfl.hdf5"
    if not pfl_file.exists():
        store.unlink(missing_ok=True)
        synthesize(output=store)
        write_layout(open_store(store), pfl_file, "pfl")
    return store, pfl_file


def _run(tool: str, setting: str, seed: int, output: Path, store: Path, pfl_file: Path) -> None:
    """One run in a process of its own, unless its file is there."""
    file = _file(output, tool, setting, seed)
    if file.exists():
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-m", "pfl_parity.curve", tool, setting, str(seed), str(store), str(pfl_file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{tool}, {setting}, seed {seed}: ended with status {done.returncode}; see above")
    file.write_text(done.stdout)
    print(f"{tool}, {setting}, seed {seed}: {_rows(output, tool, setting, seed)[-1]}", file=sys.stderr, flush=True)


def _file(output: Path, tool: str, setting: str, seed: int) -> Path:
    return output / f"{tool}-{setting}-{seed}.jsonl"


def _rows(output: Path, tool: str, setting: str, seed: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _file(output, tool, setting, seed).read_text().splitlines()]


def _curves(output: Path, tool: str, setting: str, num_seeds: int) -> Curves:
    """Macro AP on val: [seeds, evaluations]."""
    rows = (_rows(output, tool, setting, seed) for seed in range(num_seeds))
    return np.array([[row["macro_ap"] for row in run] for run in rows])


def _draw(curves: dict[str, dict[str, Curves]], rounds: Sequence[int], path: Path) -> None:
    """Mean curves over seeds, with bands of a standard deviation."""
    figure, axes = plt.subplots(1, len(curves), figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, (setting, by_tool) in zip(axes, curves.items()):
        for tool, colour in TOOLS.items():
            mean, deviation = by_tool[tool].mean(0), by_tool[tool].std(0, ddof=1)
            axis.plot(rounds, mean, color=colour, marker="o", markersize=3, label=tool)
            axis.fill_between(rounds, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(setting)
        axis.set_xlabel("round")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("macro AP on val")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
