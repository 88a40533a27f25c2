"""Archives that are damaged or that try to leave their folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.sources.archives import safe_name, unpack, verify
from fedflair.errors import DataError
from tests.properties import examples

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


def test_an_archive_that_unpacks_to_more_than_it_may(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", IMAGES | {"bomb.jpg": bytes(3_000_000)})
    assert path.stat().st_size < 10_000
    for most in (1_000_000, 3_000_000):
        with pytest.raises(DataError, match=rf"unpacks to more than {most:,} bytes.*--raise_limits"):
            verify(path, most)
        with pytest.raises(DataError, match="unpacks to more than"):
            unpack(path, tmp_path / "out", most=most)
    assert not (tmp_path / "out" / "bomb.jpg").exists()
    verify(path, 3_100_000)
    assert unpack(path, tmp_path / "out", most=3_100_000) == 3


def test_zeros_after_the_last_member_count_too(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", IMAGES)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(5_000_000)))
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        verify(path, 1_000_000)


def test_a_member_that_says_it_is_larger_than_the_archive(tmp_path: Path) -> None:
    """A sparse one is zeros that are nowhere, which would be written all the same."""
    sparse = member("small_images/3.jpg", tarfile.GNUTYPE_SPARSE)
    head = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    # One piece of no bytes at the end of a file of 64 GB.
    head[386:398] = head[398:410] = b"00000000000\0"
    head[386:398] = b"\x80\0\0\0" + (1 << 36).to_bytes(8, "big")
    head[483:495] = b"\x80\0\0\0" + (1 << 36).to_bytes(8, "big")
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:512]))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(head) + bytes(1024)))
    with tarfile.open(path) as tar:
        assert [m.size for m in tar] == [1 << 36]
    with pytest.raises(DataError, match=r"unpacks to more than 1,000,000 bytes|small_images/3.jpg"):
        unpack(path, tmp_path / "out", most=1_000_000)
    assert not list(tmp_path.glob("out/*/*"))


LONG = [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X"]


@pytest.mark.parametrize("kind", LONG)
def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, 2_000_000
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(head.tobuf() + bytes(2_000_384)))
    with pytest.raises(DataError, match=r"damaged at its start \(a header of 2,000,000 bytes\)"):
        verify(path)


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


@examples(40, keeps_fixtures=True)
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
