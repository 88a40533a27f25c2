#!/usr/bin/env python
"""Whether fedflair computes what pfl-research computes: parameters after four rounds, with randomness taken out.

Both tools get the same users, pixels, initial weights, order of images and noise, and ResNet-18 at 64 pixels. In
float64 what differs is a difference of the algorithms; in float32 it is rounding as well, of which each tool has its
own, so each is held against the float64 path. With randomness: ``perf/parity_curves.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from peers.users import write_users
from pfl_parity.cases import CASES, NETWORKS, SIZES

FLOAT64_BOUND = 1e-9
TOOLS = ("fedflair", "pfl")
Arrays = dict[str, npt.NDArray[np.float64]]
Ask = Callable[[str, str, Path], Arrays]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--network", default="resnet18", choices=list(NETWORKS))
    options = parser.parse_args()
    worst = 0.0
    print(f"{'':42} {'way':>9} {'float64':>9} {'float32 from float64':>28}")
    print(f"{'':42} {'':>9} {'differ':>9} {'fedflair':>14} {'pfl':>13}")
    with tempfile.TemporaryDirectory() as name:
        for one in both_ways(options.cases, options.network, Path(name), ["float64", "float32"]):
            print(f"{one.case:42} {one.way:9.4f} {one.apart:9.1e} ", end="")
            print("".join(f"{one.rounding[tool]:14.1e}" for tool in TOOLS), flush=True)
            worst = max(worst, one.apart)
    print(f"largest difference of a parameter in float64: {worst:.1e}, of {FLOAT64_BOUND:.0e} allowed")
    if worst > FLOAT64_BOUND:
        raise SystemExit(1)


@dataclass(frozen=True)
class Solved:
    """way: how far the parameters moved in float64. apart: most that one of them differs between the tools there.

    rounding: distance of each tool's float32 parameters from its own in float64, as a share of the way.
    """

    case: str
    way: float
    apart: float
    rounding: dict[str, float]


def both_ways(cases: Sequence[str], network: str, folder: Path, precisions: Sequence[str]) -> Iterator[Solved]:
    """Solves cases with both tools. precisions: float64 first; without float32 nothing is said of rounding."""
    with ExitStack() as stack:
        store, pfl_file = write_users(folder, SIZES)
        ask = {p: stack.enter_context(_solver(p, network, store.path, pfl_file)) for p in precisions}
        for case in cases:
            exact = {tool: ask["float64"](case, tool, folder / f"64-{tool}.npz") for tool in TOOLS}
            start = ask["float64"](case, "start", folder / "start.npz")
            way, rounding = _length(exact["fedflair"], start), {}
            if "float32" in ask:
                for tool in TOOLS:
                    single = ask["float32"](case, tool, folder / f"32-{tool}.npz")
                    rounding[tool] = _length(single, exact[tool]) / way
            yield Solved(case, way, _furthest(exact["fedflair"], exact["pfl"]), rounding)


@contextmanager
def _solver(precision: str, network: str, store: Path, pfl_file: Path) -> Iterator[Ask]:
    """(case, tool, file) -> the parameters by name, computed by a process of that precision."""
    kernels = {"FEDFLAIR_KERNELS": "0"} if precision == "float64" else {}
    environment = {**os.environ, **kernels, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-m", "pfl_parity.solve", precision, network, str(store), str(pfl_file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def ask(case: str, tool: str, file: Path) -> Arrays:
            asked.write(json.dumps([case, tool, str(file)]) + "\n")
            asked.flush()
            if not answers.readline():
                raise SystemExit(f"{precision}: {case}: {tool} ended with status {process.wait()}; see above")
            with np.load(file) as arrays:
                return {name: arrays[name].astype(np.float64) for name in arrays}

        try:
            yield ask
        finally:
            asked.close()
            process.wait()


def _length(left: Arrays, right: Arrays) -> float:
    return sum(float(np.square(left[name] - right[name]).sum()) for name in left) ** 0.5


def _furthest(left: Arrays, right: Arrays) -> float:
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


if __name__ == "__main__":
    main()
