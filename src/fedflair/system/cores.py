"""How many cores and how much memory this process may use: the machine's, less what its container or owner allows."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def num_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores to use: those the process is bound to, and no more than its control group (v1, v2) has a quota for."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota(cgroups)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time that the control group may use; None is no limit."""
    found = []
    for folder in _own_folders(cgroups):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    for folder in (cgroups / "cpu", cgroups / "cpu,cpuacct"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _own_folders(cgroups: Path) -> list[Path]:
    """The folders of the process's own group of version 2 and of those above it, each of which may have a limit."""
    own = next((line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), "/")
    folder = cgroups / own.lstrip("/")
    return [place for place in (folder, *folder.parents) if place == cgroups or cgroups in place.parents]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
