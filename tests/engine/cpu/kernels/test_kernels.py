"""The compiled kernels: found, built once, done without; and the passes over the whole vector."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedflair.engine import vector
from fedflair.engine.cpu.kernels import library

PROGRAM = "from fedflair.engine.cpu.kernels import library; print(library() is not None)"


def run(cache: Path, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_built_once_and_kept(tmp_path: Path) -> None:
    if library() is None:
        pytest.skip("this machine has no C compiler")
    assert run(tmp_path) == "True"
    (built,) = (tmp_path / "fedflair").iterdir()
    before = built.stat().st_mtime_ns
    # From the cache alone: there is no compiler on this path.
    assert run(tmp_path, PATH="/nonexistent") == "False"
    assert run(tmp_path) == "True"
    assert built.stat().st_mtime_ns == before


def test_without_a_compiler_or_a_place_to_build_there_are_none(tmp_path: Path) -> None:
    assert run(tmp_path, FEDFLAIR_KERNELS="0") == "False"
    (tmp_path / "fedflair").write_text("in the way")
    assert run(tmp_path) == "False"


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000, 4099])
@pytest.mark.parametrize("kernels", [True, False])
def test_passes_over_the_vector(count: int, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr(vector, "library", lambda: None)
    generator = torch.Generator().manual_seed(count)
    source, gradients = torch.randn(count, generator=generator), torch.randn(count, generator=generator)
    parameters, rounded = torch.empty(count), torch.empty(count, dtype=torch.bfloat16)
    vector.load(parameters, source, rounded)
    assert torch.equal(parameters, source)
    assert torch.equal(rounded, source.bfloat16())
    vector.descend(parameters, gradients, torch.tensor(0.25), rounded)
    torch.testing.assert_close(parameters, source - 0.25 * gradients)
    assert torch.equal(rounded, parameters.bfloat16())
    expected = float(np.linalg.norm(source.double().numpy()))
    assert math.isclose(float(vector.norm(source)), expected, rel_tol=1e-6)


def test_memory_of_a_difference_is_used_again_once_nothing_holds_it() -> None:
    left, right = torch.arange(1003.0), torch.ones(1003)
    first = vector.difference(left, right)
    assert torch.equal(first, left - 1)
    place, view = first.data_ptr(), first[5:7]
    del first
    held = vector.difference(left, right)
    assert held.data_ptr() != place
    assert view.tolist() == [4.0, 5.0]
    del view
    assert vector.difference(left, right).data_ptr() == place


def test_rounding_to_bfloat16_is_torchs() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.3895314e38, math.inf, -math.inf, 1e-30])
    parameters, rounded = torch.empty_like(values), torch.empty_like(values, dtype=torch.bfloat16)
    vector.load(parameters, values, rounded)
    assert torch.equal(rounded.view(torch.int16), values.bfloat16().view(torch.int16))
    vector.load(parameters, torch.full_like(values, math.nan), rounded)
    assert rounded.isnan().all()
