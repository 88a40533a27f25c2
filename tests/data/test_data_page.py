"""The code of docs/data.md runs as it stands, with the real pfl, Flower and datasets."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.skipif(not (3, 11) <= sys.version_info[:2] < (3, 13), reason="pfl and Flower are both there in 3.11, 3.12")
def test_every_block_of_the_page_runs_in_turn(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny_store, tmp_path / "flair.hdf5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["test-00000-of-00001.parquet"]
