"""The code of docs/python.md runs as it stands, in a folder with a store and photographs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import jpeg

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_pages_first_block_runs(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"<!-- run by tests/api/test_page.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shutil.copy(tiny_store, tmp_path / "flair.hdf5")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(jpeg(1))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    # The tiny store has six users.
    exec(block.replace("cohort_size=8", "cohort_size=3"), found)
    assert len(found["run"].metrics) == 4
