"""From a request to what its source works with."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.data.download import run
from fedflair.data.download.bounds import Bounds
from fedflair.data.download.plan import Plan, Request, Tools, Watcher


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
