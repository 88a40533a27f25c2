"""One encoded photograph to pixels, by libjpeg-turbo where it is a JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fedflair.errors import DataError

_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"

# Of four colours Pillow makes three as printers mean them, libjpeg-turbo does not.
_COLOURS = ("RGB", "YCbCr", "Gray")
# A store's images have 65,536 pixels; what has so many more, or so many scans, was made to stall whoever decodes it.
_MAX_PIXELS = 1 << 24
_MAX_SCANS = 200


def decode_rgb(encoded: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pixels of a photograph as a store has them: uint8 [H, W, 3].

    JPEGs go straight to libjpeg-turbo, which gives Pillow's pixels in half of Pillow's time; whatever that refuses, and
    the PNGs of stores that were made from bare pixels, are left to Pillow. Raises DataError where both refuse, naming
    the image by its attribute ``place`` where it has one.
    """
    try:
        return _decoded(encoded)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, Image.DecompressionBombError) as error:
        place = getattr(encoded, "place", "an image")
        raise DataError(
            f"{place} cannot be decoded ({decoders_words(error)}); make the store again with "
            "'fedflair prepare --skip_bad_images', which leaves such images out, and begin its runs again"
        ) from error


def decoders_words(error: BaseException) -> str:
    """What a decoder says of bytes that it refuses, in a line: Pillow names a buffer where it knows nothing."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return " ".join(str(error).split())[:200]


def _decoded(encoded: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    data = encoded.data
    if data[:2] == _JPEG_START:
        if data.tobytes().count(_JPEG_SCAN) > _MAX_SCANS:
            raise ValueError(f"it has more than {_MAX_SCANS} scans")
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in _COLOURS and height * width <= _MAX_PIXELS:
                pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
                return pixels
        except ValueError:
            pass
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
