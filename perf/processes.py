"""The processes that a script of this folder has started, by what /proc says of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MEGABYTE = 2**20


def processes(name: str) -> list[int]:
    """Processes whose command's last part starts with ``name``, among this process's descendants."""
    return [pid for pid in descendants(os.getpid()) if title(pid).rpartition("/")[2].startswith(name)]


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += [int(word) for word in file.read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def memory(pid: int) -> list[int]:
    """Resident bytes of a process, without what it shares; nothing where it has ended."""
    with contextlib.suppress(OSError, IndexError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return [(int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGESIZE")]
    return []


def shared_memory(pid: int) -> int:
    """Resident bytes of shared memory that a process maps; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssShmem:"):
                return int(line.split()[1]) * 1024
    return 0


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used, all threads together; 0 where it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def title(pid: int) -> str:
    """The first word of a process's command line; empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    return ""
