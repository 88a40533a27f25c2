"""The commands and the code of docs/data.md run as they stand, with the real pfl, Flower and datasets."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fedflair.cli import main
from fedflair.data.store.packed import open_store
from tests.data.own_photographs import write_photographs

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


def test_the_commands_take_photographs_in_and_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    # The page's own table, and more users, since a cohort of eight needs as many.
    table = "".join(line + "\n" for line in re.findall(r"^    (\S+)$", text, re.MULTILINE))
    listed = [line.split(",")[0] for line in table.splitlines()[1:]]
    more = [f"user {k}/1.png" for k in range(8)]
    assert len(listed) == 3
    write_photographs(tmp_path / "photographs", (*listed, *more))
    (tmp_path / "labels.csv").write_text(table + "".join(f"{name},cat\n" for name in more))
    for command in "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines():
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += shlex.split("--image_size 32 --central_num_iterations 1 --evaluation_frequency 1 --device cpu")
        assert main(words) == 0, capsys.readouterr().err
    assert open_store("own.hdf5").metadata.labels == ("beach", "cat", "sofa")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "back.hdf5", "labels.csv", "own-parquet", "own-pfl.hdf5", "own-shards", "own.hdf5", "photographs", "runs",
    ]  # fmt: skip
