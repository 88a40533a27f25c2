"""People's own photographs: found in folders, and made what a store would hold of them, whatever they are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fedflair.data.images.decode import decode_rgb
from fedflair.data.images.limits import Limits
from fedflair.data.images.photographs import Photograph, find_photographs, read_photograph
from fedflair.errors import DataError
from tests.conftest import jpeg

RED, BLUE = (200, 30, 30), (30, 30, 200)


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """The left half red, the right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.quantize(4) if mode == "P" else image.convert(mode)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels(photograph: Photograph) -> npt.NDArray[np.int64]:
    found = decode_rgb(photograph.encoded).astype(np.int64)
    assert found.shape == (256, 256, 3)
    return found


def is_halves(photograph: Photograph, left: tuple[int, ...] = RED, right: tuple[int, ...] = BLUE) -> bool:
    found = pixels(photograph)
    return all(np.abs(found[:, k] - np.array(colour)).max() <= 10 for k, colour in ((20, left), (235, right)))


def test_a_jpeg_as_stores_have_it_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(3))
    found = read_photograph(path)
    assert found.encoded.tobytes() == path.read_bytes()
    assert found.aspect == 1.0


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "ppm", "jp2", "tga"])
@pytest.mark.parametrize(("width", "height"), [(600, 200), (40, 90)])
def test_every_size_and_format_is_taken_whole(tmp_path: Path, ending: str, width: int, height: int) -> None:
    found = read_photograph(saved(tmp_path / f"a.{ending}", halves(width, height)))
    assert is_halves(found)
    assert found.aspect == pytest.approx(width / height, rel=0.02)


def test_it_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    # To be turned by a quarter, clockwise.
    exif[0x0112] = 6
    found = read_photograph(saved(tmp_path / "a.jpg", halves(256, 256), exif=exif, quality=95))
    upright = pixels(found)
    assert np.abs(upright[20] - np.array(RED)).max() <= 8
    assert np.abs(upright[235] - np.array(BLUE)).max() <= 8
    turned = read_photograph(saved(tmp_path / "b.jpg", halves(600, 300), exif=exif))
    assert turned.aspect == pytest.approx(0.5)


def test_unusual_pixels(tmp_path: Path) -> None:
    assert is_halves(read_photograph(saved(tmp_path / "palette.png", halves(300, 300, "P"))))
    assert is_halves(read_photograph(saved(tmp_path / "four.jpg", halves(300, 300, "CMYK"))), RED, BLUE)
    see_through = halves(300, 300, "RGBA")
    see_through.paste((0, 0, 0, 0), (150, 0, 300, 300))
    assert is_halves(read_photograph(saved(tmp_path / "alpha.png", see_through)), right=(255, 255, 255))
    palette = halves(300, 300, "P")
    palette.info["transparency"] = palette.getpixel((299, 0))
    transparent = saved(tmp_path / "transparent.png", palette, transparency=palette.getpixel((299, 0)))
    assert is_halves(read_photograph(transparent), right=(255, 255, 255))
    deep = np.zeros((300, 300), dtype=np.uint16)
    deep[:, 150:] = 65535
    deep[:, :150] = 100 * 257
    sixteen = saved(tmp_path / "deep.png", Image.fromarray(deep))
    assert is_halves(read_photograph(sixteen), (100, 100, 100), (255, 255, 255))
    frames = [halves(300, 300), Image.new("RGB", (300, 300), (0, 255, 0))]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        moving = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=100)
        assert is_halves(read_photograph(moving)), name
    burst = saved(tmp_path / "burst.jpg", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    assert is_halves(read_photograph(burst))


def test_nothing_is_lost_after_the_resize(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    found = read_photograph(saved(tmp_path / "a.png", Image.fromarray(noise)))
    assert np.array_equal(decode_rgb(found.encoded), noise)


def truncated(path: Path) -> None:
    path.write_bytes(jpeg(0, side=300)[:-200])


def spoilt(path: Path) -> None:
    # Its markers are whole, and what is between them is not a picture's.
    content = bytearray(jpeg(0))
    start = content.index(b"\xff\xda") + 14
    content[start:-2] = bytes(len(content) - 2 - start)
    path.write_bytes(bytes(content))


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n")


def scans(path: Path) -> None:
    content = io.BytesIO()
    halves(256, 256).save(content, "JPEG", progressive=True)
    data = content.getvalue()
    start = data.rindex(b"\xff\xda")
    path.write_bytes(data[:start] + data[start:-2] * 60 + data[-2:])


@pytest.mark.parametrize(
    ("make", "limits", "message"),
    [
        (lambda path: path.write_bytes(b""), Limits(), "no image data at all"),
        (lambda path: path.write_text("<svg/>"), Limits(), "cannot be decoded: not an image of a known format"),
        (postscript, Limits(), "cannot be decoded: not an image of a known format"),
        (truncated, Limits(), "truncated JPEG"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50), Limits(), "cannot be decoded"),
        (lambda path: halves(300, 300).save(path, "PNG"), Limits(image_pixels=89_999), "300x300 pixels are more"),
        (lambda path: halves(300, 300).save(path, "PNG"), Limits(image_bytes=10), "see --max_image_bytes"),
        (scans, Limits(image_scans=30), "see --max_image_scans"),
        (lambda path: path.mkdir(), Limits(), "a folder without photographs"),
        (lambda path: None, Limits(), "no such file"),
        (lambda path: os.mkfifo(path), Limits(), "no such file"),
    ],
)
def test_what_is_none_is_named_in_a_line(tmp_path: Path, make: Any, limits: Limits, message: str) -> None:
    path = tmp_path / "photo.jpg"
    make(path)
    with pytest.raises(DataError) as caught:
        read_photograph(path, limits)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_jpeg_whose_pixels_are_spoilt_says_nothing_of_a_store(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    spoilt(path)
    try:
        read_photograph(path)
    except DataError as error:
        assert "store" not in str(error)
        assert str(error).startswith(f"{path}: cannot be decoded")


def test_photographs_of_folders_in_order(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "notes.txt",
        "film.mpg",
        "store.h5",
        ".hidden.jpg",
        "deep/er/c.webp",
        ".git/d.jpg",
        "none/readme.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    found = find_photographs([tmp_path, tmp_path / "notes.txt", tmp_path / "none", tmp_path / "absent"])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        *("a.png", "b.JPG", "deep/er/c.webp"),
        *("notes.txt", "none", "absent"),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match=r"closed: not permitted"):
        find_photographs([tmp_path])
