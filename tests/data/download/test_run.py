"""From a request to what its source works with."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedflair.data.download import run
from fedflair.data.download.bounds import Bounds
from fedflair.data.download.plan import Item, Plan, Request, Tools, Watcher


def test_a_sources_patience_and_bounds_are_those_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tools] = []

    def plan(request: Request, tools: Tools) -> Plan:
        seen.append(tools)
        return Plan({}, 0, 0, "none", lambda: None)

    monkeypatch.setitem(run.PLANS, "apple", plan)
    run.download(Request(tmp_path, source="apple"), Watcher())
    run.download(Request(tmp_path, source="apple", min_rate=5.0, raise_limits=1.5), Watcher())
    assert [tools.patience.min_rate for tools in seen] == [1000, 5]
    assert seen[0].bounds == Bounds()
    assert (seen[1].bounds.answer, seen[1].bounds.pages) == (24_000_000, 150)


def test_sizes_for_people() -> None:
    sizes = [0, 999, 1000, 1_260_000, 999_940_000, 5 * 10**9, 3 * 10**12, 4 * 10**15]
    shown = ["0 B", "999 B", "1.0 kB", "1.3 MB", "999.9 MB", "5.0 GB", "3.0 TB", "4000.0 TB"]
    assert list(map(run.human, sizes)) == shown


def test_ctrl_c_stops_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the program would go on until the files that have begun are whole."""
    stopped: list[bool] = []

    def fetch_one(item: Item, output: Path, tools: Tools, watcher: Watcher) -> None:
        if item.name == "second":
            # Both are under way by then, and waited for.
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)
        stopped.append(tools.stop.wait(20))

    monkeypatch.setattr(run, "_fetch_one", fetch_one)
    tools: Any = SimpleNamespace(stop=threading.Event())
    items: Any = [SimpleNamespace(name=name) for name in ("first", "second")]
    with pytest.raises(KeyboardInterrupt):
        run._fetch_all(items, Request(tmp_path, source="apple", num_connections=2), tools, Watcher())
    assert stopped == [True, True]
