"""Processes as the kernel shows them in /proc: those of one parent, what they are doing, and where they listen."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, those that they started, and so on."""
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += [int(word) for word in file.read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def titled(pids: list[int], title: str) -> list[int]:
    """Those whose command line starts with ``title``; Ray's workers show there what they are doing."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                found.append(pid)
    return found


def executable(pid: int) -> str:
    """The name of the program that a process runs; empty where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


def is_running(pid: int) -> bool:
    """Whether the process is there, and has not ended without being waited for."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def listening_addresses(pids: list[int]) -> list[str]:
    """The addresses at which these processes listen for TCP connections, in the kernel's hexadecimal."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(str(descriptor.readlink()))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                addresses.append(fields[1].split(":")[0])
    return addresses


def forget_ended_processes() -> None:
    """Lets go of processes that Ray has killed and not waited for, of which Python would warn when it finds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
