"""People's own photographs as a source: what is listed is read, nothing else, and nothing outside the folder."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.sources.photographs import open_photographs, split_users
from fedflair.errors import DataError
from tests.data.own_photographs import PHOTOGRAPHS, write_own, write_photographs, write_table


def test_records_are_the_lines_of_the_table(tmp_path: Path) -> None:
    photographs, table = write_own(tmp_path)
    source = open_photographs(photographs, table)
    found = list(source.records())
    assert [(r.image_id, r.user_id, r.labels, r.fine_grained_labels) for r in found] == [
        (2, "anna", ("cat", "sofa"), ()),
        (3, "anna", ("beach",), ()),
        (4, "bob", ("cat",), ()),
        (5, "bob", (), ()),
        (6, "ümit", ("sofa", "beach"), ()),
        (7, "zoe", ("beach", "cat"), ()),
    ]
    assert [r.image for r in found] == [(photographs / name).read_bytes() for name in PHOTOGRAPHS]
    assert found[0].where == f"{photographs}/anna/cat.jpg (line 2 of labels.csv)"
    assert Counter({r.user_id: r.partition for r in found}.values()) == {"train": 2, "val": 1, "test": 1}
    assert (source.num_records, source.provenance["seed"]) == (6, 0)
    assert list(source.records()) == found


def test_partitions_of_the_table_hold(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", ("a/1.png", "b/1.png"))
    table = write_table(tmp_path / "t.csv", ["a/1.png,x,validation", "b/1.png,y,train"], "path,labels,partition")
    source = open_photographs(photographs, table)
    assert [r.partition for r in source.records()] == ["val", "train"]
    assert source.provenance["seed"] is None
    with pytest.raises(DataError, match="names every user's partition, so --seed has no effect; leave it out"):
        open_photographs(photographs, table, seed=1)


def test_what_is_not_listed_is_counted(tmp_path: Path) -> None:
    photographs, _ = write_own(tmp_path)
    table = write_table(photographs / "labels.csv", ["anna/cat.jpg,cat", "bob/1.webp,cat", "zoe/a.bmp,x"])
    (photographs / "bob" / "._1.webp").write_bytes(b"x")
    (photographs / "notes.txt").write_text("x")
    (photographs / "dangling").symlink_to("nowhere")
    source = open_photographs(photographs, table)
    assert len(list(source.records())) == 3
    assert source.ignored == {"images that the labels do not list": 3, "hidden files": 1, "other files": 2}


def refusal(folder: Path, *lines: str) -> str:
    table = write_table(folder / "t.csv", list(lines))
    with pytest.raises(DataError) as caught:
        open_photographs(folder / "photographs", table)
    return str(caught.value).removeprefix(f"{table}: ")


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", ("a/1.png", "b/1.png", "c/1.png"))
    listed = ("a/1.png,x", "b/1.png,y", "c/1.png,z")
    assert refusal(tmp_path, *listed, "a/2.png,x", r"b\1.png,x", "d/3.png,x") == (
        r"line 6: path 'b\\1.png' lies in no user's folder; put it into one, or add a column 'user'"
    )
    assert refusal(tmp_path, *listed, "a/2.png,x", "d/3.png,x") == (
        f"line 5: path 'a/2.png' is not in {photographs}, nor are those of 1 more lines; correct the path, whose parts "
        "are separated by '/', or remove the line"
    )
    (photographs / "a" / "u\u0308.PNG").write_bytes(b"x")
    assert refusal(tmp_path, *listed, "a/\u00fc.png,x").startswith(
        rf"line 5: path 'a/ü.png' is not in {photographs} ('u\u0308.PNG' is); correct the path"
    )
    (photographs / "a" / "folder.png").mkdir()
    assert refusal(tmp_path, *listed, "a/folder.png,x") == (
        "line 5: path 'a/folder.png' is no file; name the photograph itself"
    )
    os.mkfifo(photographs / "a" / "pipe.png")
    assert (
        refusal(tmp_path, *listed, "a/pipe.png,x") == "line 5: path 'a/pipe.png' is no file; name the photograph itself"
    )
    assert refusal(tmp_path, "a/1.png,", "b/1.png,", "c/1.png,") == (
        "no photograph has a label, so there is nothing to learn; label some"
    )
    assert refusal(tmp_path, *listed[:2]) == (
        "2 users are too few to be dealt out to train, val and test; add users, or a column 'partition' to the labels"
    )


def test_links_are_not_followed(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", ("a/1.png", "b/1.png", "c/1.png"))
    outside = write_photographs(tmp_path / "outside", ("a/secret.png",))
    (photographs / "a" / "link.png").symlink_to(outside / "a" / "secret.png")
    (photographs / "d").symlink_to(outside / "a")
    (photographs / "a" / "dangling.png").symlink_to("nowhere")
    listed = ("a/1.png,x", "b/1.png,y", "c/1.png,z")
    for path in ("a/link.png", "d/secret.png", "a/dangling.png"):
        assert refusal(tmp_path, *listed, f"{path},x") == (
            f"line 5: path '{path}' leads through a link, which is not followed; put the photograph itself there"
        )
    # The folder itself may be named by a link.
    (tmp_path / "by_link").symlink_to(photographs)
    table = write_table(tmp_path / "t.csv", list(listed))
    assert len(list(open_photographs(tmp_path / "by_link", table).records())) == 3


@given(st.sets(st.text(max_size=3), min_size=3, max_size=60), st.integers(0, 3))
def test_users_are_dealt_out_eight_to_one_to_one(user_ids: set[str], seed: int) -> None:
    dealt = split_users(user_ids, seed)
    sizes = Counter(dealt.values())
    assert dealt.keys() == user_ids
    assert sizes["val"] == sizes["test"] == max(1, round(len(user_ids) / 10))
    assert sizes["train"] == len(user_ids) - 2 * sizes["val"]
    assert split_users(sorted(user_ids, reverse=True), seed) == dealt


def test_another_seed_deals_otherwise() -> None:
    users = [f"user {k}" for k in range(100)]
    assert split_users(users, 0) != split_users(users, 1)
