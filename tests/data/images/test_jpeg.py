from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedflair.data.images.jpeg import inspect, is_stored_png, pixels_as_ppm, reencode
from fedflair.errors import DataError
from tests.conftest import jpeg
from tests.data.releases import encoded

WHOLE = jpeg(1)
PROGRESSIVE = encoded(Image.open(io.BytesIO(WHOLE)), "JPEG", progressive=True, quality=85)


def rgb(side: tuple[int, int] = (256, 256), colour: tuple[int, int, int] = (200, 30, 60)) -> Image.Image:
    return Image.new("RGB", side, colour)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def with_orientation(value: int, order: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = value
    return encoded(Image.open(io.BytesIO(WHOLE)), "JPEG", exif=exif)


def test_jpegs_that_are_stored_as_they_are():
    assert inspect(WHOLE) is None
    assert inspect(PROGRESSIVE) is None
    assert inspect(encoded(rgb(), "JPEG", subsampling=0)) is None
    assert inspect(encoded(rgb(), "JPEG", restart_marker_blocks=4)) is None
    assert inspect(with_orientation(1)) is None
    assert inspect(WHOLE + b"bytes after the end") is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(rgb().convert("L"), "JPEG"), "grey JPEG"),
        (encoded(rgb().convert("CMYK"), "JPEG"), "CMYK JPEG"),
        (encoded(rgb((255, 256)), "JPEG"), "not 256x256"),
        (encoded(rgb((3, 2)), "JPEG"), "not 256x256"),
        (with_orientation(6, "<"), "rotated by EXIF"),
        (with_orientation(3, ">"), "rotated by EXIF"),
        (encoded(rgb(), "PNG"), "PNG"),
        (encoded(rgb(), "GIF"), "GIF"),
        (encoded(rgb(), "BMP"), "BMP"),
        (encoded(rgb(), "TIFF"), "TIFF"),
        (encoded(rgb(), "WEBP"), "WebP"),
    ],
)
def test_what_must_be_reencoded_and_what_comes_of_it(data: bytes, reason: str):
    assert inspect(data) == reason
    assert inspect(reencode(data, "jpeg")) is None
    assert is_stored_png(reencode(data, "png"))


@pytest.mark.parametrize("whole", [WHOLE, PROGRESSIVE], ids=["baseline", "progressive"])
@given(st.data())
def test_a_jpeg_cut_anywhere_is_an_error(whole: bytes, data: st.DataObject):
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(DataError, match=r"truncated|malformed|no image data|not an image"):
        inspect(cut)


@given(st.binary(max_size=300))
def test_any_bytes_after_a_jpeg_signature_are_told_or_refused(data: bytes):
    try:
        assert inspect(b"\xff\xd8" + data) is None or isinstance(inspect(b"\xff\xd8" + data), str)
    except DataError as error:
        assert "JPEG" in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on what it can read all the same
@given(st.data())
def test_bytes_of_an_image_changed_anywhere_never_raise_anything_but_our_error(data: st.DataObject):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    damaged = bytearray(encoded(rgb((20, 20)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert inspect(reencode(bytes(damaged), "jpeg")) is None
    except DataError as error:
        assert "\n" not in str(error)


def test_the_whole_picture_is_kept_whatever_its_shape():
    wide = Image.new("RGB", (800, 100))
    wide.paste((255, 0, 0), (0, 0, 400, 100))
    wide.paste((0, 0, 255), (400, 0, 800, 100))
    result = pixels(reencode(encoded(wide, "PNG"), "png"))
    assert result.shape == (256, 256, 3)
    assert (result[:, :120] == (255, 0, 0)).all() and (result[:, 136:] == (0, 0, 255)).all()


HUGE = """
import io
import re
import sys
from pathlib import Path
from PIL import Image
from fedflair.data.images.jpeg import reencode

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) // 1024

reencode(Path(sys.argv[1]).read_bytes(), "jpeg")
before = peak()
reencode(Path(sys.argv[2]).read_bytes(), "jpeg")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_huge_jpeg_is_decoded_small(tmp_path: Path):
    """Whole, its pixels would take 147 MB."""
    (tmp_path / "small.jpeg").write_bytes(encoded(rgb((512, 512)), "JPEG"))
    (tmp_path / "huge.jpeg").write_bytes(encoded(rgb((7000, 7000)), "JPEG"))
    command = [sys.executable, "-c", HUGE, tmp_path / "small.jpeg", tmp_path / "huge.jpeg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 70


def test_rotation_is_applied():
    upright = Image.new("RGB", (256, 256))
    upright.paste((255, 255, 255), (0, 0, 256, 128))  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left: shown turned to the right
    result = pixels(reencode(encoded(upright, "JPEG", exif=exif), "png"))
    assert result[:, 200:].min() > 240 and result[:, :56].max() < 15


def test_transparency_is_put_on_white():
    clear = Image.new("RGBA", (256, 256), (10, 20, 30, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 128, 256))
    palette = clear.convert("P")
    palette.info["transparency"] = palette.getpixel((200, 0))
    for image in (clear, clear.convert("LA"), palette):
        result = pixels(reencode(encoded(image, "PNG"), "png"))
        assert (result[:, 128:] == 255).all() and result[:, :128].max() == result[0, 0].max()


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.full((256, 256), 0x8000, dtype=np.uint16)
    result = pixels(reencode(encoded(Image.fromarray(values), "PNG"), "png"))
    assert (result == 0x80).all()


def test_bare_pixels_survive_as_png_bit_for_bit():
    values = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    ppm = pixels_as_ppm(values)
    assert inspect(ppm) == "pixels"
    np.testing.assert_array_equal(pixels(reencode(ppm, "png")), values)


def test_stored_pngs_are_known_by_size_depth_and_end():
    png = encoded(rgb(), "PNG")
    assert is_stored_png(png)
    for other in (png[:-1], encoded(rgb((256, 255)), "PNG"), encoded(rgb().convert("L"), "PNG"), WHOLE):
        assert not is_stored_png(other)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(rgb(), "PNG")[:60], encoded(rgb(), "GIF")[:20]])
def test_what_cannot_be_decoded_is_one_line(data: bytes):
    with pytest.raises(DataError) as caught:
        inspect(data)
        reencode(data, "jpeg")
    assert "\n" not in str(caught.value)
