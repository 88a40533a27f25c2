"""The comparison of whole rounds runs, and knows where the time goes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from tests import prepared

PERF = Path(__file__).parents[1] / "perf"
CASES = [
    "fedavg, server AdamW, warm-up and decay",
    "adafedprox",
    "scaffold, option 2",
    "updates clipped, the same noise",
]


def test_every_kind_of_work_of_a_round_is_timed() -> None:
    command = [sys.executable, "train.py", "--json", "--rounds", "1", "--sizes", "flair", "--cohort_size", "2"]
    done = subprocess.run(
        [*command, "--tools", "fedflair fp32", "--model_type", "squeezenet1_1"],
        cwd=PERF,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    result = json.loads(done.stdout)
    (size,) = result["cases"]
    measured = result["results"][size]["fedflair fp32"]
    assert len(measured["ms"]) == 1
    phases = measured["phases"]
    assert set(phases) == {
        "data", "forward and backward", "parameter vector", "privacy", "aggregation", "rest",
    }  # fmt: skip
    assert all(share > 0 for name, share in phases.items() if name != "rest")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_gpu_s_script_says_where_there_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "gpu.sh", str(tmp_path / "results")],
        cwd=PERF,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"perf/gpu.sh: {sys.executable} has no torch that sees a GPU; name another one with PYTHON="
    ]
    assert not (tmp_path / "results").exists()


def test_check_names_what_is_slower_than_it_may_be() -> None:
    program = (
        "import json, train\n"
        "ms = {'fedflair fp32': 10.0, 'fedflair bf16': 10.4, 'plain fp32': 9.6, 'plain bf16': 9.8, 'pfl': 1.0}\n"
        "results = {'2': {tool: train.Measured([time, 99.0, 0.1]) for tool, time in ms.items()}}\n"
        "print(json.dumps(train.slower_than_allowed(results)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PERF, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        "images a user 2: fedflair bf16 takes 10.4 ms an image-step, plain fp32 9.6: slower by more than 5%",
        "images a user 2: fedflair bf16 takes 10.4 ms an image-step, plain bf16 9.8: slower by more than 5%",
    ]


def both_ways(folder: Path, cases: Sequence[str]) -> int:
    parity = importlib.import_module("parity")
    solved = parity.both_ways(cases, "small_cnn", folder, ["float64"])
    print(json.dumps([[one.case, one.way, one.apart] for one in solved]))
    return 0


def test_what_pfl_computes_is_what_we_compute(tmp_path: Path) -> None:
    """In float64, with randomness taken out: as ``perf/parity.py`` shows of every algorithm and of ResNet-18."""
    pytest.importorskip("pfl", reason="the pfl package is not installed; make setup installs it")
    done = prepared.run(CASES, PERF, through=partial(both_ways, tmp_path))
    assert done.returncode == 0, done.stderr
    solved = json.loads(done.stdout.splitlines()[-1])
    assert [case for case, _, _ in solved] == CASES
    for case, way, apart in solved:
        assert way > 0.1, case
        assert apart < 1e-12, case
