"""``fedflair describe`` as a person and as a program read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_statistics import SMALL, write_store

from fedflair.data.describe import describe, printable
from fedflair.errors import DataError


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", SMALL), json=True)
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["train", "val", "all"]
    assert (printed["train"]["users"], printed["train"]["images"]) == (2, 4)
    assert printed["train"]["labels"]["images_per_label"] == {"animal": 3, "food": 1, "plant": 1}
    assert printed["all"]["fine_grained_labels"]["users_per_label"] == {"cat": 1, "dog": 1, "fern": 2, "soup": 2}
    assert printed["all"]["images_per_user"]["max"] == 3


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", SMALL))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "2", "4", "0"] in lines
    assert ["animal", "3", "0", "3"] in lines


def test_a_label_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("[red]a[/red]", "b\x1b[2Jb", "plant")
    describe(write_store(tmp_path / "s.hdf5", SMALL, labels))
    printed = capsys.readouterr().out
    assert "[red]a[/red]" in printed
    assert "\x1b" not in printed
    assert printable("b\x1b[2Jb") == r"b\x1b[2Jb"


def test_what_is_not_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.hdf5: no such store"):
        describe(tmp_path / "missing.hdf5")
