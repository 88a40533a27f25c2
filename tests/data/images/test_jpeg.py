from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedflair.data.images.decode import decode_rgb
from fedflair.data.images.jpeg import inspect, is_stored_png, pillow_unlimited, pixels_as_ppm, reencode
from fedflair.data.images.limits import Limits
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


def enormous_png(side: int) -> bytes:
    """A PNG whose header declares ``side`` x ``side`` pixels, with data of a few."""
    data = bytearray(encoded(rgb((8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("side", [9460, 13_000, 60_000])
def test_pixels_beyond_the_limit_are_refused_by_the_header(side: int):
    with pillow_unlimited(), pytest.raises(DataError, match=f"^{side:,}x{side:,} pixels are more.*--max_image_pixels"):
        reencode(enormous_png(side), "jpeg")
    # Of a JPEG, whose data is never looked at.
    frame = WHOLE.index(b"\xff\xc0") + 5
    jpeg_of_side = WHOLE[:frame] + struct.pack(">HH", side, side) + WHOLE[frame + 4 :]
    with pytest.raises(DataError, match=f"^{side:,}x{side:,} pixels are more"):
        inspect(jpeg_of_side)


def test_the_limit_on_pixels_is_exact_and_can_be_raised():
    for pixel_limit, fits in ((300 * 200, True), (300 * 200 - 1, False)):
        for kind in ("JPEG", "PNG", "TIFF"):
            data = encoded(rgb((300, 200)), kind)

            limits = Limits(image_pixels=pixel_limit)
            if fits:
                assert inspect(data, limits) and inspect(reencode(data, "jpeg", limits)) is None
                continue
            with pytest.raises(DataError, match="300x200 pixels are more"):
                reencode(data, "jpeg", limits)
            if kind == "JPEG":
                with pytest.raises(DataError, match="300x200 pixels are more"):
                    inspect(data, limits)


def test_an_image_between_pillows_limits_is_decoded_where_ours_allows_it():
    side = 9500  # 90 million pixels: Pillow would warn
    data = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(DataError, match="9,500x9,500 pixels are more"), pillow_unlimited():
        reencode(data, "jpeg")
    with pillow_unlimited():
        assert inspect(reencode(data, "jpeg", Limits(image_pixels=side * side))) is None


def test_scans_and_bytes_are_limited():
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert scans == 10
    assert inspect(PROGRESSIVE, Limits(image_scans=scans)) is None
    with pytest.raises(DataError, match="a JPEG of more than 9 scans; see --max_image_scans"):
        inspect(PROGRESSIVE, Limits(image_scans=scans - 1))
    assert inspect(WHOLE, Limits(image_bytes=len(WHOLE))) is None
    with pytest.raises(DataError, match="bytes are more than an image may have; see --max_image_bytes"):
        inspect(WHOLE, Limits(image_bytes=len(WHOLE) - 1))


def many_scans(number: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    return PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * number + PROGRESSIVE[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_in_sources_and_in_stores():
    data = many_scans(8000)
    with pytest.raises(DataError, match="more than 100 scans"):
        inspect(data)
    with pytest.raises(DataError, match="more than 200 scans"):
        decode_rgb(np.frombuffer(data, dtype=np.uint8))
    with pillow_unlimited(), pytest.raises(DataError, match=r"cannot be decoded \(20000x20000 pixels are too many"):
        decode_rgb(np.frombuffer(enormous_png(20_000), dtype=np.uint8))


def test_colours_are_not_subsampled():
    # Stripes of one pixel that differ in colour only, which subsampling would make one grey.
    values = np.zeros((256, 256, 3), dtype=np.uint8)
    values[:, ::2], values[:, 1::2] = (200, 60, 60), (40, 120, 200)
    stored = reencode(encoded(Image.fromarray(values), "PNG"), "jpeg")
    with Image.open(io.BytesIO(stored)) as image:
        assert [(component[1], component[2]) for component in image.layer] == [(1, 1)] * 3
        assert image.quantization == Image.open(io.BytesIO(encoded(rgb(), "JPEG", quality=95))).quantization
    assert np.abs(pixels(stored).astype(int) - values).mean() < 4


@pytest.mark.parametrize("side", [1600, 700, 300])
def test_a_large_jpeg_is_not_decoded_smaller_than_what_is_made_of_it(side: int):
    # As fine a pattern as 256 pixels can hold.
    values = np.kron(np.indices((128, 128)).sum(0) % 2 * 255, np.ones((4, 4))).astype(np.uint8)
    picture = Image.fromarray(values).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
    data = encoded(picture, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image.resize((256, 256), Image.Resampling.LANCZOS), dtype=int)
    assert np.abs(pixels(reencode(data, "png")).astype(int) - whole).mean() < 3


@pytest.mark.parametrize("side", [1, 20, 255])
def test_a_small_image_is_made_larger(side: int):
    picture = Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8))
    expected = np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixels(reencode(encoded(picture, "PNG"), "png")), expected)
