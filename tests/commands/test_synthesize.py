"""``fedflair synthesize`` as a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.cli import main
from fedflair.commands.synthesize import synthesize
from fedflair.data.store.packed import open_store


def test_a_release_is_to_be_prepared_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(output=tmp_path / "hub", num_users=10, format="huggingface", processes=1)
    out = capsys.readouterr().out
    assert f"{tmp_path / 'hub'}: 83 images" in out
    assert f"Next: fedflair prepare --source {tmp_path / 'hub'} --output" in out


def test_a_folder_that_is_not_empty_is_refused_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["synthesize", "--output", str(tmp_path), "--num_users", "10", "--format", "all"]) == 1
    assert capsys.readouterr().err.strip().endswith("exists already; remove it or choose another --output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "flair.hdf5"
    assert main(["synthesize", "--num_users", "10", "--scale", "full", "--output", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"Next: fedflair describe {output}"
    assert captured.err == ""
    assert open_store(output).partitions["train"].num_users == 8
