"""Pixels of stored photographs, against Pillow's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fedflair.data.images.decode import decode_rgb
from fedflair.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8).repeat(7, 0).repeat(7, 1)


def encoded(image: Image.Image, form: str, **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def by_pillow(data: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(data.tobytes())) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 2}, {"progressive": True}]
)
def test_jpegs_have_pillows_pixels(options: dict[str, object]) -> None:
    data = encoded(Image.fromarray(PIXELS), "JPEG", **options)
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    data = encoded(Image.fromarray(PIXELS).convert(mode), "JPEG")
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(data))


def test_pngs_are_exact() -> None:
    np.testing.assert_array_equal(decode_rgb(encoded(Image.fromarray(PIXELS), "PNG")), PIXELS)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"an image cannot be decoded .not an image of a known .*--skip_bad_images"):
        decode_rgb(np.frombuffer(b"\xff\xd8 no picture", dtype=np.uint8))
