"""From encoded photographs to network inputs: decode, crop, flip, resize, normalise, in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from fedflair.data.images.decode import decode_rgb
from fedflair.data.images.preprocessing import IMAGENET, Interpolation, Preprocessing

CROP_AREA = (0.08, 1.0)
CROP_LOG_RATIO = (np.log(3 / 4), np.log(4 / 3))


def decode(encoded: Sequence[npt.NDArray[np.uint8]]) -> list[torch.Tensor]:
    """Pixels of each image (JPEG, or PNG where a store was made from decoded pixels): uint8 [3, H, W]."""
    return [torch.from_numpy(decode_rgb(image)).permute(2, 0, 1) for image in encoded]


def train_inputs(
    images: Sequence[torch.Tensor], size: int, generator: np.random.Generator, wanted: Preprocessing = IMAGENET
) -> torch.Tensor:
    """A fresh random resized crop and horizontal flip of EACH image: float32 [n, 3, size, size], normalised.

    images: uint8 [3, H, W] each. The crop covers 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3, as in
    torchvision's RandomResizedCrop with its defaults.
    """
    crops = []
    for image in images:
        top, left, height, width, flipped = random_crop(int(image.shape[1]), int(image.shape[2]), generator)
        crop = resized(image[:, top : top + height, left : left + width], size, wanted.interpolation)
        crops.append(crop.flip(2) if flipped else crop)
    return normalise(torch.stack(crops), wanted)


def eval_inputs(images: Sequence[torch.Tensor], size: int, wanted: Preprocessing = IMAGENET) -> torch.Tensor:
    """Each image resized whole: float32 [n, 3, size, size], normalised."""
    return normalise(torch.stack([resized(image, size, wanted.interpolation) for image in images]), wanted)


def resized(image: torch.Tensor, size: int, interpolation: Interpolation = "bilinear") -> torch.Tensor:
    """With antialiasing, as torchvision and Pillow do it: uint8 [3, H, W] to [3, size, size]."""
    if image.shape[1:] == (size, size):
        return image
    return interpolate(image[None], (size, size), mode=interpolation, antialias=True)[0]


def normalise(pixels: torch.Tensor, wanted: Preprocessing = IMAGENET) -> torch.Tensor:
    """uint8 [n, 3, H, W] to float32 in channels-last layout, less the mean and over the deviation."""
    mean, scale = (values.view(1, 3, 1, 1) for values in wanted.normalisation(pixels.device))
    return ((pixels.float() - mean) * scale).contiguous(memory_format=torch.channels_last)


def random_crop(height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int, bool]:
    """(top, left, height, width) of a random resized crop, and whether it is mirrored."""
    return *random_crop_box(height, width, generator), bool(generator.random() < 0.5)


def random_crop_box(height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop; the centred largest admissible crop after ten misses."""
    for _ in range(10):
        area = height * width * generator.uniform(*CROP_AREA)
        ratio = np.exp(generator.uniform(*CROP_LOG_RATIO))
        crop_width, crop_height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(generator.integers(0, height - crop_height + 1))
            left = int(generator.integers(0, width - crop_width + 1))
            return top, left, int(crop_height), int(crop_width)
    low, high = np.exp(CROP_LOG_RATIO)
    crop_width = min(width, round(height * high))
    crop_height = min(height, round(width / low))
    return (height - crop_height) // 2, (width - crop_width) // 2, int(crop_height), int(crop_width)
