"""``prepare --labels`` from people's own photographs to a store, and from the store to a trained model and back out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedflair.cli import main
from fedflair.data.images.decode import decode_rgb
from fedflair.data.preparation.convert import convert
from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import Store, open_store
from fedflair.errors import ConfigError, DataError
from fedflair.runs.folder import RunFolder, read_summary
from tests.data.own_photographs import write_own, write_photographs, write_table
from tests.data.releases import contents

# Of any kind: ids that look like others, lead elsewhere, steer terminals or pages, or are no names of HDF5 groups.
ODD_IDS = ("1", "01", "1.0", "１", "ü/é", "..", ".", "%2F", "\x1b[31mred", "<script>alert(1)</script>", "x" * 1000)
ODD_LABELS = ("<b>bold</b>", "$x$", "käse, weiß")


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of each odd user, with labels that are as odd, and no fine ones."""
    folder = tmp_path_factory.mktemp("odd")
    names = tuple(f"{k}.png" for k in range(2 * len(ODD_IDS)))
    lines = [f"{name};{ODD_IDS[k // 2]};{'|'.join(ODD_LABELS[: k % 4])}" for k, name in enumerate(names)]
    table = write_table(folder / "t.csv", lines, "path;user;labels")
    prepare(source=write_photographs(folder / "photographs", names), labels=table, output=folder / "odd.hdf5")
    return folder / "odd.hdf5"


def ids_of(store: Store) -> set[str]:
    return {user_id for partition in store.partitions.values() for user_id in partition.user_ids}


def test_every_format_and_size_becomes_what_a_store_holds(tmp_path: Path) -> None:
    photographs, table = write_own(tmp_path)
    summary = prepare(source=photographs, labels=table, output=tmp_path / "s.hdf5")
    store = open_store(tmp_path / "s.hdf5")
    found = contents(store)
    assert {image_id: (of[0], of[2], of[3]) for image_id, of in found.items()} == {
        2: ("anna", ("cat", "sofa"), ()),
        3: ("anna", ("beach",), ()),
        4: ("bob", ("cat",), ()),
        5: ("bob", (), ()),
        6: ("ümit", ("beach", "sofa"), ()),
        7: ("zoe", ("beach", "cat"), ()),
    }
    assert (store.metadata.labels, store.metadata.fine_grained_labels) == (("beach", "cat", "sofa"), ())
    assert found[2][4] == (photographs / "anna" / "cat.jpg").read_bytes()
    for image_id, colour in (
        (3, (0, 128, 0)),
        (4, (0, 0, 255)),
        (5, (255, 255, 0)),
        (6, (128, 0, 128)),
        (7, (255, 0, 0)),
    ):
        pixels = decode_rgb(np.frombuffer(found[image_id][4], dtype=np.uint8)).astype(int)
        assert pixels.shape == (256, 256, 3)
        assert np.abs(pixels - colour).max() <= 8, image_id
    assert summary.reencoded == {"BMP": 1, "PNG": 1, "TIFF": 1, "WebP": 1, "another format": 1}
    provenance = store.metadata.provenance
    assert (provenance["source"], provenance["labels"], provenance["seed"]) == ("photographs", str(table), 0)


def test_the_order_of_the_users_in_the_file_does_not_deal_them_out(tmp_path: Path) -> None:
    photographs, table = write_own(tmp_path)
    header, *lines = table.read_text().splitlines()
    partitions = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        prepare(
            source=photographs,
            labels=write_table(tmp_path / f"{name}.csv", order, header),
            output=tmp_path / f"{name}.hdf5",
        )
        store = open_store(tmp_path / f"{name}.hdf5")
        partitions.append({part: of.user_ids for part, of in store.partitions.items()})
    assert partitions[0] == partitions[1]


def test_damaged_photographs_are_refused_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs, table = write_own(tmp_path)
    whole = (photographs / "anna" / "cat.jpg").read_bytes()
    (photographs / "anna" / "cat.jpg").write_bytes(whole[: len(whole) // 2])
    (photographs / "bob" / "2.jp2").write_bytes(b"no picture")
    (photographs / "zoe" / "a.bmp").write_bytes(b"\x00\x00\x00\x20ftypheic" + bytes(40))
    output = tmp_path / "s.hdf5"
    words = ["prepare", "--source", str(photographs), "--labels", str(table), "--output", str(output)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f"fedflair: {photographs}/anna/cat.jpg (line 2 of labels.csv): image 2 is bad: truncated JPEG"
    )
    assert said.rstrip().endswith("correct it, or pass --skip_bad_images to leave such images out")
    assert not output.exists()
    assert main([*words, "--skip_bad_images"]) == 0
    said = capsys.readouterr().out
    assert "(line 5 of labels.csv): image 5 is bad: cannot be decoded: not an image of a known format" in said
    assert "image 7 is bad: a HEIC photograph, which Pillow does not read by itself; convert it to JPEG" in said
    assert sorted(contents(open_store(output))) == [3, 4, 6]


def test_options_that_have_no_effect_are_refused(tmp_path: Path) -> None:
    photographs, table = write_own(tmp_path)
    output = tmp_path / "s.hdf5"
    for options, message in (
        ({"seed": 1}, "seed: has no effect without --labels"),
        ({"label_separator": ";"}, "label_separator: has no effect without --labels"),
        ({"labels": table, "source_format": "apple"}, "source_format: apple has no effect with --labels"),
        ({"labels": table, "label_separator": ""}, "label_separator: is empty; give the text"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(source=photographs, output=output, **options)  # type: ignore[arg-type]
    before = table.read_text()
    for options, message in (
        ({"output": table}, "is the file of labels, which would be lost"),
        ({"source": tmp_path / "none"}, "none: no such folder; --source is the folder of the photographs"),
        ({"source": table}, r"labels\.csv: is no folder; --labels goes with a --source that is a folder"),
        ({"labels": tmp_path / "none.csv"}, r"none\.csv: cannot be read: No such file"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(**{"source": photographs, "labels": table, "output": output, **options})  # type: ignore[arg-type]
    assert table.read_text() == before
    assert not output.exists()


def test_a_folder_of_photographs_alone_names_the_way(tmp_path: Path) -> None:
    photographs, _ = write_own(tmp_path)
    with pytest.raises(DataError, match="photographs of your own need a file of --labels"):
        prepare(source=photographs, output=tmp_path / "s.hdf5")


def test_ids_of_any_kind_train_and_are_shown_safely(
    tmp_path: Path, odd_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids_of(open_store(odd_store)) == set(ODD_IDS)
    run = str(tmp_path / "run")
    options = "--model small_cnn --pretrained false --image_size 32 --cohort_size 3 --central_num_iterations 1"
    options += " --evaluation_frequency 1 --algorithm_name scaffold --device cpu"
    assert main(["train", "--data_path", str(odd_store), "--run", run, *options.split()]) == 0
    assert main(["evaluate", "--run", run, "--per_user"]) == 0
    assert main(["predict", "--run", run, "--partition", "train", "--csv"]) == 0
    assert main(["describe", str(odd_store), "--output", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "FLAIR" not in said
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "\x1b" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "fine ones" not in page and "fine labels in use" not in page
    assert list(json.loads((tmp_path / "run" / "label_ap.json").read_text())) == sorted(ODD_LABELS)
    assert read_summary(RunFolder(tmp_path / "run"))["setting"] == "flair"
    words = ["train", "--data_path", str(odd_store), "--run", f"{run}2", *options.split()]
    assert main([*words, "--use_fine_grained_labels", "true"]) == 1
    assert "odd.hdf5 has no fine labels, the other kind only; choose that" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["pfl", "ml-flair", "ml-flair-central", "parquet"])
def test_through_other_layouts_and_back_nothing_is_lost(tmp_path: Path, odd_store: Path, layout: str) -> None:
    convert(odd_store, tmp_path / "other", layout=layout)  # type: ignore[arg-type]
    convert(tmp_path / "other", tmp_path / "back.hdf5", layout="packed")
    before, after = (contents(open_store(path)) for path in (odd_store, tmp_path / "back.hdf5"))
    assert {key: value[:4] for key, value in after.items()} == {key: value[:4] for key, value in before.items()}
    assert open_store(tmp_path / "back.hdf5").metadata.labels == tuple(sorted(ODD_LABELS))
