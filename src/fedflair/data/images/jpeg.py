"""What an image file is, read from its structure alone; and turning anything else into what a store holds.

A store holds whole 256x256 images of three 8-bit channels: as the source's own JPEG bytes where those are that
already, re-encoded where they are not, and as PNG (lossless) where the source had bare pixels.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fedflair.data.images.decode import decoders_words
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.errors import DataError

SIDE = 256
ImageEncoding = Literal["jpeg", "png"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# The marker that ends a stretch of entropy-coded data: neither a stuffed byte, a fill byte nor a restart marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FRAMES_KEPT = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended sequential, progressive; all Huffman-coded
_SIGNATURES = {
    _PNG_SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"P6\n": "pixels",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_FORMATS = ("JPEG", "PNG", "GIF", "PPM", "BMP", "TIFF", "WEBP")
# All that Pillow's decoders of these formats raise on damaged input.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


# Images of more pixels, which no decoder makes smaller while it reads them, are decoded one at a time.
_LARGE_PIXELS = 1 << 24
_LARGE = threading.Lock()


def inspect(data: bytes, limits: Limits = DEFAULT, *, any_format: bool = False) -> str | None:
    """None where ``data`` can be stored as it is; else in a few words why it must be re-encoded.

    Stored as it is: a JPEG of 256x256 pixels, three 8-bit channels, baseline or progressive, not rotated by EXIF,
    whose markers lead without a gap to the end-of-image marker. No pixel is decoded, so this takes some ten
    microseconds; damage inside the entropy-coded data that leaves the markers intact is not seen.

    any_format: what is of no format that FLAIR and other tools use may still be an image.
    Raises DataError where ``data`` is no image, a JPEG that is cut short or malformed, or beyond the limits.
    """
    if len(data) > limits.image_bytes:
        raise DataError(f"{len(data):,} bytes are more than an image may have; see --max_image_bytes")
    if not data.startswith(b"\xff\xd8"):
        for signature, name in _SIGNATURES.items():
            if data.startswith(signature):
                return name
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return "WebP"
        if any_format and data:
            return "another format"
        raise DataError("no image data at all" if not data else "not an image of a known format")
    return _inspect_jpeg(data, limits)


def _inspect_jpeg(data: bytes, limits: Limits) -> str | None:
    frame: tuple[int, int, int, int, int] | None = None
    orientation = 1
    num_scans = 0
    position = 2
    try:
        while (marker := data[position + 1]) != 0xD9 or data[position] != 0xFF:
            if data[position] != 0xFF:
                raise DataError(f"malformed JPEG: no marker at byte {position}")
            if marker == 0xFF:  # a fill byte
                position += 1
                continue
            body = position + 4
            position += 2 + (data[position + 2] << 8 | data[position + 3])
            if marker == 0xDA:
                num_scans += 1
                if num_scans > limits.image_scans:
                    raise DataError(f"a JPEG of more than {limits.image_scans} scans; see --max_image_scans")
                end = _NEXT_MARKER.search(data, position)
                if end is None:
                    raise DataError("truncated JPEG: its data has no end-of-image marker")
                position = end.start()
            elif marker in _FRAME_HEADERS:
                frame = (marker, *struct.unpack_from(">BHHB", data, body))
            elif marker == 0xE1 and data[body : body + 6] == b"Exif\x00\x00":
                orientation = _exif_orientation(data[body + 6 : position])
    except (IndexError, struct.error) as error:
        raise DataError(f"truncated JPEG: it ends after {len(data)} bytes, inside a header") from error
    if frame is None or not num_scans:
        raise DataError("malformed JPEG: it has no frame or no scan")
    _check_pixels(frame[3], frame[2], limits)
    return _frame_reason(frame, orientation)


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.image_pixels:
        raise DataError(f"{width:,}x{height:,} pixels are more than an image may have; see --max_image_pixels")


def _frame_reason(frame: tuple[int, int, int, int, int], orientation: int) -> str | None:
    marker, bits, height, width, channels = frame
    if channels == 1:
        return "grey JPEG"
    if channels == 4:
        return "CMYK JPEG"
    if marker not in _FRAMES_KEPT or bits != 8 or channels != 3:
        return "unusual JPEG coding"
    if orientation not in (0, 1):
        return "rotated by EXIF"
    if (height, width) != (SIDE, SIDE):
        return f"not {SIDE}x{SIDE}"
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 (upright) where it is missing or the directory cannot be read."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 1
    return 1


def is_stored_png(data: bytes) -> bool:
    """Whether ``data`` is a whole 256x256 PNG of three 8-bit channels, as stores of bare pixels hold."""
    header = struct.pack(">II", SIDE, SIDE) + b"\x08\x02"
    return data.startswith(_PNG_SIGNATURE) and data[16:26] == header and data.endswith(_PNG_END)


def reencode(data: bytes, encoding: ImageEncoding, limits: Limits = DEFAULT) -> bytes:
    """``data`` decoded and encoded anew as a 256x256 RGB image, upright and whole.

    As in FLAIR's own small images the whole picture is kept and both sides are resized to 256 (Lanczos), whatever
    the aspect ratio. Transparency is put on white, 16-bit values are scaled to 8 bits, of an animation the first
    frame is kept. JPEG: quality 95 without chroma subsampling; PNG: lossless.

    Raises DataError where the data cannot be decoded, a decoder's own message included, or is beyond the limits, which
    its header tells before anything is decoded.
    """
    return encode(squared(data, limits)[0], encoding)


def squared(data: bytes, limits: Limits = DEFAULT, formats: Collection[str] = _FORMATS) -> tuple[Image.Image, float]:
    """The picture that ``reencode`` encodes, and the width over the height that it had before it was made square.

    formats: that are read, as Pillow names them. Raises DataError as ``reencode`` does.
    """
    Image.init()
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as image:
            _check_pixels(image.width, image.height, limits)
            shrinks = image.format == "JPEG" and "progressive" not in image.info
            with nullcontext() if shrinks or image.width * image.height <= _LARGE_PIXELS else _LARGE:
                return _shrunk(image)
    except _DECODE_ERRORS as error:
        raise DataError(f"cannot be decoded: {decoders_words(error)}") from error


def _shrunk(image: Image.Image) -> tuple[Image.Image, float]:
    # Lets the JPEG decoder leave out what the resize throws away, which bounds the memory of huge images.
    image.draft("RGB", (3 * SIDE, 3 * SIDE))
    image.load()
    upright = _as_rgb(ImageOps.exif_transpose(image))
    aspect = upright.width / upright.height
    if upright.size != (SIDE, SIDE):
        upright = upright.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return upright, aspect


@contextmanager
def pillow_unlimited() -> Iterator[None]:
    """Lifts Pillow's own limit on pixels, of the whole process, where those here are checked instead."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def encode(image: Image.Image, encoding: ImageEncoding) -> bytes:
    """As a store holds it; the encodings are those of ``reencode``."""
    buffer = io.BytesIO()
    if encoding == "png":
        # Level 1 takes a fifth of the default's time and gives files that are about a tenth larger.
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values to 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def pixels_as_ppm(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Bare pixels (uint8 [H, W, 3]) as a binary PPM file, which is how a source hands them on without encoding them."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()
