"""Cores to use: those the process is bound to, and what its container is given of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedflair.system import cores
from fedflair.system.cores import num_cores

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def test_without_control_groups_the_process_has_what_it_is_bound_to(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == BOUND


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", min(2, BOUND)), ("max 100000", BOUND), ("x", BOUND)],
)
def test_a_quota_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int) -> None:
    monkeypatch.setattr(cores, "_own_groups", lambda: {"": "/job"})
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "cpu.max").write_text(quota + "\n")
    assert num_cores(tmp_path) == expected


def test_the_group_above_may_have_the_smaller_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_own_groups", lambda: {"": "/slice/job/step"})
    (tmp_path / "slice" / "job" / "step").mkdir(parents=True)
    (tmp_path / "slice" / "job" / "step" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "slice" / "cpu.max").write_text("100000 100000\n")
    assert num_cores(tmp_path) == 1
    # Two quotas: the smaller one holds, wherever it stands.
    (tmp_path / "slice" / "job" / "cpu.max").write_text(f"{BOUND + 3}00000 100000\n")
    assert num_cores(tmp_path) == 1


@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("group", ["/", "/docker/abc"])
def test_a_quota_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controller: str, group: str) -> None:
    monkeypatch.setattr(cores, "_own_groups", lambda: {"cpu,cpuacct": group, "memory": "/"})
    folder = tmp_path / controller / group.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("100000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert num_cores(tmp_path) == 1
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert num_cores(tmp_path) == BOUND


def test_nothing_else_asks_how_many_cores_there_are() -> None:
    source = Path(cores.__file__).parents[1]
    words = ("cpu_count", "getaffinity", "process_cpu")
    asked = [path.name for path in source.rglob("*.py") if any(word in path.read_text() for word in words)]
    assert asked == ["cores.py"]
