"""Archives that are damaged or that try to leave their folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedflair.data.sources.archives import safe_name, unpack, verify
from fedflair.errors import DataError

IMAGES = {"small_images/1.jpg": b"one" * 500, "small_images/2.jpg": b"two" * 700}


def archive(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o4777
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_unpack(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", IMAGES, member("small_images", tarfile.DIRTYPE))
    verify(path)
    assert unpack(path, tmp_path / "out") == 2
    found = {file.relative_to(tmp_path / "out").as_posix(): file.read_bytes() for file in tmp_path.glob("out/*/*")}
    assert found == IMAGES
    assert (tmp_path / "out/small_images/1.jpg").stat().st_mode & 0o7777 == 0o644


def test_only_what_is_wanted(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", IMAGES)
    assert unpack(path, tmp_path / "out", lambda name: name.endswith("2.jpg")) == 1
    assert [file.name for file in tmp_path.glob("out/*/*")] == ["2.jpg"]


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "small_images/../../x.jpg", "..", "a\\..\\x.jpg"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.tar.gz", {name: b"bad"})
    with pytest.raises(DataError, match=r"a\.tar\.gz: member .* leads out of the folder"):
        unpack(path, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("x.jpg"))
    with pytest.raises(DataError):
        safe_name(name, "here")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    path = archive(tmp_path / "a.tar.gz", {}, member("small_images/1.jpg", kind, "/etc/passwd"))
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_link_on_disk(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/small_images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="would pass through a link"):
        unpack(archive(tmp_path / "a.tar.gz", IMAGES), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_that_is_a_link_on_disk_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out/small_images").mkdir(parents=True)
    (tmp_path / "out/small_images/1.jpg").symlink_to(tmp_path / "precious")
    unpack(archive(tmp_path / "a.tar.gz", IMAGES), tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "out/small_images/1.jpg").read_bytes() == IMAGES["small_images/1.jpg"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_archive_cut_anywhere_or_with_any_byte_changed_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    content = gzip.compress(gzip.decompress(archive(tmp_path / "a.tar.gz", IMAGES).read_bytes()), mtime=0)
    if data.draw(st.booleans()):
        damaged = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        # The gzip header's time and system (bytes 4 to 9) are not covered by any checksum.
        place = data.draw(st.integers(10, len(content) - 1))
        damaged = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    path = tmp_path / "damaged.tar.gz"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged\.tar\.gz: cut short or damaged at .*; download it again"):
        verify(path)
    with pytest.raises(DataError):
        unpack(path, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written"):
        unpack(archive(tmp_path / "a.tar.gz", IMAGES), tmp_path / "out")
