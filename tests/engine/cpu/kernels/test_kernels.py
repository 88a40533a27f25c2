"""The compiled kernels: found, built once, done without; and the passes over the whole vector."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
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
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "FEDFLAIR_KERNELS": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def built_in(cache: Path) -> Path:
    (built,) = (cache / "fedflair").glob("*.so")
    return built


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compiler that keeps what it made, and notes when it is asked: compiling takes seconds."""
    real = shutil.which("cc")
    if library() is None or real is None:
        pytest.skip("this machine has no C compiler")
    compiler = tmp_path_factory.mktemp("compiler") / "cc"
    compiler.write_text(
        f'#!/bin/sh\ncd {compiler.parent}\necho asked >>asked\n[ -e made ] || {real} "$@" -o made || exit 1\n'
        'while [ "$1" != -o ]; do shift; done\ncp made "$2"\n'
    )
    compiler.chmod(0o755)
    return compiler.parent


@pytest.fixture
def path(remembering: Path) -> str:
    """Where programs are looked for: this compiler first, which has not been asked yet."""
    (remembering / "asked").unlink(missing_ok=True)
    return f"{remembering}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def compiled(remembering: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the compiled library in it."""
    cache = tmp_path_factory.mktemp("cache")
    assert run(cache, PATH=f"{remembering}:{os.environ['PATH']}") == "True"
    return cache


@pytest.fixture
def kept(compiled: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(compiled, tmp_path / "kept"))


def times_asked(remembering: Path) -> int:
    asked = remembering / "asked"
    return len(asked.read_text().splitlines()) if asked.exists() else 0


def test_built_once_and_kept(kept: Path, remembering: Path, path: str) -> None:
    before = built_in(kept).stat().st_mtime_ns
    # From the cache alone: there is no compiler on this path.
    assert run(kept, PATH="/nonexistent") == "False"
    assert run(kept, PATH=path) == "True"
    assert times_asked(remembering) == 0
    assert built_in(kept).stat().st_mtime_ns == before
    assert sorted(path.suffix for path in (kept / "fedflair").iterdir()) == [".sha256", ".so"]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "no checksum"])
def test_a_damaged_library_is_built_anew(kept: Path, remembering: Path, path: str, damage: str) -> None:
    built = built_in(kept)
    whole = built.read_bytes()
    if damage == "cut short":
        # A call into a page past the end would end the process by SIGBUS.
        os.truncate(built, 5000)
    elif damage == "one bit":
        built.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    else:
        built.with_suffix(".sha256").unlink()
    assert run(kept, PATH=path) == "True"
    assert times_asked(remembering) == 1
    assert built.read_bytes() == whole
    assert built.with_suffix(".sha256").is_file()


def test_where_the_cache_may_not_run_it_another_folder_does(kept: Path, remembering: Path, path: str) -> None:
    # Stands for a mount without exec: the checksum fits, and the loader refuses.
    built_in(kept).write_bytes(b"no library")
    built_in(kept).with_suffix(".sha256").write_text(hashlib.sha256(b"no library").hexdigest())
    built_in(kept).parent.chmod(0o500)
    try:
        assert run(kept, PATH=path) == "True"
        assert times_asked(remembering) == 1
    finally:
        built_in(kept).parent.chmod(0o700)


def test_without_a_compiler_or_with_a_place_to_build_only(tmp_path: Path, path: str) -> None:
    assert run(tmp_path, PATH=path, FEDFLAIR_KERNELS="0") == "False"
    (tmp_path / "fedflair").write_text("in the way")
    assert run(tmp_path, PATH=path) == "True"
    assert (tmp_path / "fedflair").read_text() == "in the way"


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
