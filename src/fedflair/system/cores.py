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
    for controllers, group in _own_groups().items():
        if not controllers:
            words = [_read(folder / "cpu.max").split() for folder in _folders(cgroups, group)]
        elif "cpu" in controllers.split(","):
            words = [
                [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
                for name in dict.fromkeys(("cpu", controllers))
                for folder in _folders(cgroups / name, group)
            ]
        else:
            continue
        found += [int(word[0]) / int(word[1]) for word in words if len(word) == 2 and all(map(_is_positive, word))]
    return min(found, default=None)


def _own_groups() -> dict[str, str]:
    """Controllers -> the process's own group: of version 1 one of each set of controllers, of version 2 one of ""."""
    lines = [line.split(":", 2) for line in _read(Path("/proc/self/cgroup")).splitlines()]
    return {parts[1]: parts[2] for parts in lines if len(parts) == 3}


def _folders(top: Path, group: str) -> list[Path]:
    """The group's folder and those above it, each of which may have a limit; inside a container the top is its own."""
    folder = top / group.lstrip("/")
    return [place for place in (folder, *folder.parents) if place == top or top in place.parents]


def _is_positive(word: str) -> bool:
    return word.isascii() and word.isdigit() and int(word) > 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
