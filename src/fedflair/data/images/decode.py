"""One encoded photograph to pixels, by libjpeg-turbo where it is a JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

_JPEG_START = b"\xff\xd8"

# Of four colours Pillow makes three as printers mean them, libjpeg-turbo does not.
_COLOURS = ("RGB", "YCbCr", "Gray")


def decode_rgb(encoded: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pixels of a photograph as a store has them: uint8 [H, W, 3].

    JPEGs go straight to libjpeg-turbo, which gives Pillow's pixels in half of Pillow's time; whatever that refuses, and
    the PNGs of stores that were made from bare pixels, are left to Pillow. Raises OSError where both refuse.
    """
    if encoded[:2].tobytes() == _JPEG_START:
        try:
            colours = simplejpeg.decode_jpeg_header(encoded.data)[2]
            if colours in _COLOURS:
                pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded.data, "RGB")
                return pixels
        except ValueError:
            pass
    with Image.open(io.BytesIO(encoded.data)) as image:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
