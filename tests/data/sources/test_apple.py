from __future__ import annotations

import io
import json
import os
import resource
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fedflair.data.images.limits import Limits
from fedflair.data.preparation.prepare import prepare
from fedflair.data.sources import open_source
from fedflair.data.sources.apple import read_relation
from fedflair.data.sources.records import Record
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
from tests.conftest import jpeg
from tests.data.releases import (
    RELATION,
    contents,
    encoded,
    expected,
    member,
    records,
    row,
    write_apple,
    write_apple_folder,
    write_archive,
    write_labels,
    write_relation,
)


def read(path: Path) -> dict[int, Any]:
    return expected(open_source(path).records())


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, position: int, **fields: Any) -> None:
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries[position].update(fields)
    path.write_text(json.dumps(entries))


def test_archives(tmp_path: Path):
    source = open_source(write_apple(tmp_path / "apple", records()))
    assert (source.name, source.fine_to_coarse) == ("apple", RELATION)
    found = list(source.records())
    assert expected(found) == expected(records())
    assert found[0].where == (
        f"{tmp_path}/apple/small_images-00.tar.gz: small_images/{found[0].image_id}.jpg "
        "(entry 1 of labels_and_metadata.json)"
    )
    assert expected(source.records()) == expected(records())


def test_an_image_folder(tmp_path: Path):
    assert read(write_apple_folder(tmp_path / "apple", records())) == expected(records())


def test_the_server_s_own_folders(tmp_path: Path):
    write_labels(tmp_path / "labels", records(), ids_as_text=False)
    write_archive(tmp_path / "images" / "small" / "small_images-00.tar.gz", map(member, records()))
    assert read(tmp_path) == expected(records())


def full_size() -> list[Record]:
    """The records with photographs of 640x480 pixels, two of them as cameras write upright ones: lying on a side."""
    made = []
    for number, r in enumerate(records()):
        pixels = np.random.default_rng(r.image_id).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if number < 2:
            exif[0x0112] = 6
            image = image.transpose(Image.Transpose.ROTATE_90)
        made.append(replace(r, image=encoded(image, "JPEG", quality=95, exif=exif)))
    return made


@pytest.mark.parametrize("place", ["images/raw/images-00.tar.gz", "images-00.tar.gz", "images/raw/images", "images"])
def test_full_size_images_become_256x256(tmp_path: Path, place: str):
    write_labels(tmp_path, full_size())
    members = [(f"images/{r.image_id}.jpg", r.image) for r in full_size()]
    if place.endswith(".gz"):
        write_archive(tmp_path / place, members)
    else:
        (tmp_path / place).mkdir(parents=True)
        for name, content in members:
            (tmp_path / place / Path(name).name).write_bytes(content)
    assert open_source(tmp_path).name == "apple-raw"
    assert read(tmp_path) == expected(full_size())
    summary = prepare(source=tmp_path, output=tmp_path / "store.hdf5")
    assert summary.reencoded == {"not 256x256": 8, "rotated by EXIF": 2}
    stored = contents(open_store(tmp_path / "store.hdf5"))
    for r in full_size():
        with Image.open(io.BytesIO(r.image)) as image:
            whole = ImageOps.exif_transpose(image).resize((256, 256), Image.Resampling.LANCZOS)
        with Image.open(io.BytesIO(stored[r.image_id][4])) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (256, 256), "RGB")
            difference = np.abs(np.asarray(image, dtype=int) - np.asarray(whole, dtype=int))
        assert difference.mean() < 2


def test_of_both_sizes_the_small_images_are_taken_unless_full_size_is_asked_for(tmp_path: Path):
    write_apple(tmp_path, records())
    with pytest.raises(DataError, match=r"no full-size images; put the folder 'images/raw/images' or"):
        open_source(tmp_path, "apple-raw")
    write_archive(
        tmp_path / "images/raw/images-00.tar.gz", [(f"images/{r.image_id}.jpg", r.image) for r in full_size()]
    )
    assert read(tmp_path) == expected(records())
    assert expected(open_source(tmp_path, "apple-raw").records()) == expected(full_size())
    (tmp_path / "images/raw/images-00.tar.gz").unlink()
    write_archive(tmp_path / "images/raw/images-00.tar.gz", [])
    with pytest.raises(DataError, match=r"images/raw/images-\*\.tar\.gz: 10 of the 10 images"):
        expected(open_source(tmp_path, "apple-raw").records())


def test_only_image_members_that_are_listed_are_read(tmp_path: Path):
    write_labels(tmp_path, records())
    evil = [
        ("small_images/", b""),
        ("small_images/._30.jpg", b"resource fork"),
        ("small_images/777.jpg", jpeg(7)),
        ("../../escape.jpg", b"x"),
        ("ATTRIBUTION.txt", b"x"),
    ]
    path = write_archive(tmp_path / "small_images-00.tar.gz", [*evil, *map(member, records())])
    assert read(tmp_path) == expected(records())
    assert not (tmp_path.parent.parent / "escape.jpg").exists()
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("small_images/30.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert f"{path}: small_images/30.jpg: is a link to '/etc/passwd', which is not followed" in error_of(tmp_path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path):
    write_apple(tmp_path, records())
    for name in ("labels_and_metadata.json", "label_relationship.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert read(tmp_path) == expected(records())
    assert open_source(tmp_path).fine_to_coarse == RELATION


def test_a_json_list_longer_than_one_piece(tmp_path: Path):
    # Padding that moves entries over the border between two pieces of 1,048,576 characters.
    write_apple(tmp_path, records())
    labels = tmp_path / "labels_and_metadata.json"
    entries = json.loads(labels.read_text(encoding="utf-8"))
    for size in (1_048_400, 1_048_576 - 2, 1_048_576):
        text = json.dumps(entries, ensure_ascii=False)
        labels.write_text(text[:-1] + " " * size + "]", encoding="utf-8")
        assert read(tmp_path) == expected(records())
        labels.write_text("[" + " " * size + text[1:], encoding="utf-8")
        assert read(tmp_path) == expected(records())


def test_missing_images_are_counted(tmp_path: Path):
    write_apple(tmp_path / "tar", records())
    (tmp_path / "tar" / "small_images-01.tar.gz").unlink()
    first = records()[4].image_id
    assert (
        f"6 of the 10 images that {tmp_path}/tar/labels_and_metadata.json lists are missing, the first is {first}.jpg"
        in (error_of(tmp_path / "tar"))
    )
    folder = write_apple_folder(tmp_path / "folder", records()) / "small_images"
    (folder / f"{first}.jpg").unlink()
    assert f"{folder}: 1 of the 10 images" in error_of(tmp_path / "folder")


def test_no_images_or_no_labels_at_all(tmp_path: Path):
    write_labels(tmp_path, records())
    assert f"{tmp_path}: labels_and_metadata.json is there but no images" in error_of(tmp_path)
    with pytest.raises(DataError, match=r"no labels_and_metadata\.json"):
        open_source(tmp_path / "..", "apple")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_an_archive_cut_short(tmp_path: Path, keep: float):
    write_apple(tmp_path, records())
    path = tmp_path / "small_images-01.tar.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert f"{path}: cut short or damaged at " in error_of(tmp_path)
    path.write_bytes(whole[:-4])  # only gzip's checksum is incomplete
    assert f"{path}: cut short or damaged at " in error_of(tmp_path)


def test_an_archive_that_is_none(tmp_path: Path):
    write_apple(tmp_path, records())
    (tmp_path / "small_images-00.tar.gz").write_bytes(b"<html>not found</html>")
    assert "small_images-00.tar.gz: cut short or damaged at its start" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user_id": None}, "entry 3: user_id is None, not text"),
        ({"user_id": 5}, "entry 3: user_id is 5, not text"),
        ({"image_id": "x1"}, "entry 3: image_id is 'x1', not a whole number"),
        ({"image_id": True}, "entry 3: image_id is True, not a whole number"),
        ({"labels": "cat"}, "entry 3: labels is 'cat', not a list of names"),
        ({"fine_grained_labels": [1]}, "entry 3: fine_grained_labels is [1], not a list of names"),
        ({"partition": None}, "entry 3: partition is None, not text"),
    ],
)
def test_entries_that_are_wrong(tmp_path: Path, fields: dict[str, Any], message: str):
    write_apple(tmp_path, records())
    edit(tmp_path / "labels_and_metadata.json", 2, **fields)
    assert f"{tmp_path}/labels_and_metadata.json: {message}" in error_of(tmp_path)


def test_a_missing_field_and_a_duplicate(tmp_path: Path):
    write_apple(tmp_path, records())
    labels = tmp_path / "labels_and_metadata.json"
    edit(labels, 6, image_id=records()[1].image_id)
    assert f"{labels}: duplicate image id {records()[1].image_id} in entries 2 and 7" in error_of(tmp_path)
    entries = [row(r) for r in records()]
    for entry in entries:
        del entry["image"]
    del entries[3]["partition"]
    labels.write_text(json.dumps(entries))
    assert f"{labels}: entry 4: no field 'partition'; it has ['user_id', 'image_id'" in error_of(tmp_path)
    labels.write_text(json.dumps([*entries[:3], ["a list"]]))
    assert f"{labels}: entry 4: not an object" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON list"),
        ('{"a": 1}', "not a JSON list"),
        ("[", "cut short"),
        ('[{"user_id": "a"', "cut short or not JSON"),
        ("[1 2]", "entry 1: not an object"),
        ("[]x", "text after the end"),
        ("[" * 100_000, "not JSON of images"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, message: str):
    write_apple(tmp_path, records())
    (tmp_path / "labels_and_metadata.json").write_text(text)
    assert message in error_of(tmp_path)


def test_json_cut_between_entries_or_without_a_comma(tmp_path: Path):
    write_apple(tmp_path, records())
    labels = tmp_path / "labels_and_metadata.json"
    text = labels.read_text(encoding="utf-8")
    for cut in (text[:-1], text[: text.rindex("{")], text[: text.rindex("}")]):
        labels.write_text(cut, encoding="utf-8")
        assert f"{labels}: cut short" in error_of(tmp_path)
    labels.write_text(text.replace("}, {", "} {", 1), encoding="utf-8")
    assert f"{labels}: not JSON (no comma between two entries)" in error_of(tmp_path)
    labels.write_bytes(text.encode("utf-16"))
    assert f"{labels}: not UTF-8 text" in error_of(tmp_path)


def test_the_relation_file(tmp_path: Path):
    path = write_relation(tmp_path)
    path.write_bytes(b"\xef\xbb\xbfa b -> c\r\n\r\n  d->e  \n")
    assert read_relation(path) == {"a b": "c", "d": "e"}
    for text, message in (
        ("a -> b\nc\n", "line 2: 'c' is not 'fine -> coarse'"),
        ("-> b\n", "line 1: '-> b' is not"),
        ("a -> b\nx -> y\na -> c\n", "line 3: 'a' belongs to 'c' here and to 'b' above"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            read_relation(path)
        assert f"{path}: {message}" in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_relation(path)


def test_a_member_that_is_there_twice_names_both_places(tmp_path: Path):
    write_labels(tmp_path, records())
    twice = [*map(member, records()), ("small_images/x.txt", b""), member(records()[2])]
    path = write_archive(tmp_path / "small_images-00.tar.gz", twice)
    image_id = records()[2].image_id
    name = f"small_images/{image_id}.jpg"
    assert f"{path}: {name}: image {image_id} is member 12 here and member 3 of {path}; remove" in error_of(tmp_path)
    write_archive(path, map(member, records()))
    other = write_archive(tmp_path / "small_images-01.tar.gz", [member(records()[2])])
    assert f"{other}: {name}: image {image_id} is member 1 here and member 3 of {path}; remove" in error_of(tmp_path)


def test_what_is_not_read_is_counted(tmp_path: Path):
    folder = write_apple_folder(tmp_path / "folder", records())
    images = folder / "small_images"
    for name in ("._30.jpg", ".DS_Store", "Thumbs.db", "777.jpg", "778.jpg", "00777.jpg"):
        (images / name).write_bytes(b"x")
    expected_counts = {"hidden files": 2, "images that the labels do not list": 3, "other files": 1}
    assert prepare(source=folder, output=tmp_path / "a.hdf5").ignored == expected_counts
    tar = tmp_path / "tar"
    write_labels(tar, records())
    extra = [("small_images/._30.jpg", b"x"), ("small_images/777.jpg", b"x"), ("a.txt", b"x")]
    write_archive(tar / "small_images-00.tar.gz", [*extra, *map(member, records())])
    (tar / "._small_images-00.tar.gz").write_bytes(b"x")
    (tar / "notes").write_bytes(b"x")
    source = open_source(tar)
    for _ in range(2):
        assert expected(source.records()) == expected(records())
        assert source.ignored == {"hidden files": 2, "images that the labels do not list": 1, "other files": 2}


def test_leading_zeros_of_a_name(tmp_path: Path):
    write_apple_folder(tmp_path, records())
    images = tmp_path / "small_images"
    (images / "30.jpg").rename(images / "0000000030.jpg")
    assert read(tmp_path) == expected(records())
    edit(tmp_path / "labels_and_metadata.json", [r.image_id for r in records()].index(30), image_id="0000000030")
    assert read(tmp_path) == expected(records())
    (images / "30.jpg").write_bytes(jpeg(1))
    assert f"{images}: has image 30 twice, once as '" in error_of(tmp_path)


def test_only_regular_files_are_opened(tmp_path: Path):
    write_apple_folder(tmp_path / "pipe", records())
    image = tmp_path / "pipe/small_images/30.jpg"
    image.unlink()
    os.mkfifo(image)
    assert f"{image}: is no regular file" in error_of(tmp_path / "pipe")
    image.unlink()
    image.symlink_to(image)
    message = error_of(tmp_path / "pipe")
    assert f"{image}: cannot be read: Too many levels of symbolic links: a link leads round in circles" in message
    image.unlink()
    image.symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "elsewhere.jpg").write_bytes(member(next(r for r in records() if r.image_id == 30))[1])
    assert read(tmp_path / "pipe") == expected(records())
    write_apple(tmp_path / "tar", records())
    (tmp_path / "tar/small_images-02.tar.gz").symlink_to("small_images-02.tar.gz")
    os.mkfifo(tmp_path / "tar/small_images-03.tar.gz")
    assert read(tmp_path / "tar") == expected(records())


@pytest.mark.parametrize("digits", ["9" * 5000, "1" + "0" * 4999])
def test_image_ids_of_thousands_of_digits(tmp_path: Path, digits: str):
    write_apple_folder(tmp_path, records())
    labels = tmp_path / "labels_and_metadata.json"
    text = labels.read_text(encoding="utf-8")
    labels.write_text(text.replace('"30"', f'"{digits}"'), encoding="utf-8")
    message = error_of(tmp_path)
    assert "image_id is '" in message and len(message) < 500
    labels.write_text(text.replace('"30"', digits), encoding="utf-8")
    message = error_of(tmp_path)
    assert str(labels) in message and len(message) < 500
    (tmp_path / "small_images" / f"{digits[:200]}.jpg").write_bytes(b"x")
    labels.write_text(text, encoding="utf-8")
    assert read(tmp_path) == expected(records())


def test_lone_surrogates_in_labels(tmp_path: Path):
    write_apple_folder(tmp_path, records())
    edit(tmp_path / "labels_and_metadata.json", 2, labels=["\ud800"], fine_grained_labels=["x"])
    with pytest.raises(DataError, match=r"entry 3 of .*label '\\ud800' is not valid Unicode; correct it"):
        prepare(source=tmp_path, output=tmp_path / "s.hdf5", ignore_label_relation=True)


def test_limits(tmp_path: Path):
    write_apple(tmp_path / "tar", records())
    write_apple_folder(tmp_path / "folder", records())
    largest = max(len(r.image) for r in records())
    too_large = f"has {largest:,} bytes, more than the {largest - 1:,}.*--max_image_bytes"
    for folder in (tmp_path / "tar", tmp_path / "folder"):
        assert expected(open_source(folder, limits=Limits(image_bytes=largest)).records()) == expected(records())
        for limits, message in (
            (Limits(image_bytes=largest - 1), too_large),
            (Limits(label_bytes=100), r"labels_and_metadata\.json: has .* see --max_label_bytes"),
        ):
            with pytest.raises(DataError, match=message):
                list(open_source(folder, limits=limits).records())


def test_a_member_that_is_not_listed_takes_no_memory_and_an_archive_does_not_grow_without_limit(tmp_path: Path):
    write_labels(tmp_path, records())
    path = tmp_path / "small_images-00.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        zeros = tarfile.TarInfo("small_images/777.jpg")
        zeros.size = 1 << 28
        tar.addfile(zeros, Zeros())
        for name, content in map(member, records()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(tmp_path) == expected(records())
    with pytest.raises(DataError, match=r"small_images-00\.tar\.gz: unpacks to more than .*--max_archive_growth"):
        list(open_source(tmp_path, limits=Limits(archive_growth=50)).records())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


class Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)
