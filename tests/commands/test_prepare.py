"""What ``fedflair prepare`` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fedflair.cli import main
from fedflair.commands.prepare import prepare
from tests.data.own_photographs import write_photographs, write_table
from tests.data.releases import encoded, records, write_apple_folder, write_hub


def test_the_next_command_is_named_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(source=write_apple_folder(tmp_path / "folder", records()), output=tmp_path / "folder.hdf5")
    assert capsys.readouterr().out.rstrip().endswith(f"Next: fedflair describe {tmp_path}/folder.hdf5")


def test_the_summary_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = records()
    grey = encoded(Image.new("L", (256, 256), 90), "JPEG")
    made[0], made[1] = replace(made[0], image=grey), replace(made[1], image=grey)
    made[3] = replace(made[3], image=made[3].image[:-30])
    prepare(source=write_hub(tmp_path / "hub", made), output=tmp_path / "s.hdf5", skip_bad_images=True)
    printed = capsys.readouterr().out
    assert "re-encoded 2: grey JPEG" in printed
    assert f"train-00001-of-00002.parquet: row 1: image {made[3].image_id} is bad: truncated JPEG" in printed
    assert "val          1 users         2 images" in printed


def test_partitions_that_training_will_want_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(source=write_hub(tmp_path / "hub", records()), output=tmp_path / "s.hdf5")
    assert "training needs" not in capsys.readouterr().out
    photographs = write_photographs(tmp_path / "photographs", ("a/1.png",))
    table = write_table(tmp_path / "t.csv", ["a/1.png,cat,train"], "path,labels,partition")
    prepare(source=photographs, labels=table, output=tmp_path / "own.hdf5")
    said = "training needs users in train, val and test; there are none in val and test"
    assert said in capsys.readouterr().out


def test_what_is_no_store_is_not_to_be_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(source=write_hub(tmp_path / "hub", records()), output=tmp_path / "c.hdf5", not_group_data_by_user=True)
    assert "describe" not in capsys.readouterr().out


def test_what_was_not_read_is_said_and_limits_are_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_apple_folder(tmp_path / "folder", records())
    (folder / "small_images" / "._30.jpg").write_bytes(b"x")
    (folder / "small_images" / "777.jpg").write_bytes(b"x")
    words = ["--source", str(folder), "--output", str(tmp_path / "s.hdf5")]
    assert main(["prepare", *words]) == 0
    printed = capsys.readouterr().out
    assert "ignored 1: hidden files" in printed
    assert "ignored 1: images that the labels do not list" in printed
    for option, message in (
        ("--max_image_pixels", "256x256 pixels are more than an image may have; see --max_image_pixels"),
        ("--max_image_bytes", "more than the 1000 that are read; see --max_image_bytes"),
        ("--max_label_bytes", "more than the 1000 that are read; see --max_label_bytes"),
    ):
        for command in (["prepare", *words], ["convert", str(folder), str(tmp_path / "c.hdf5"), "--layout", "packed"]):
            assert main([*command, option, "1000"]) == 1
            assert message in capsys.readouterr().err.replace(",", "")
