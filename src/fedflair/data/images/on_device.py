"""Decode on the host, everything else on the device: crops, flips and normalisation of a batch in a few kernels.

A resize is linear and separable, so a crop, its resize and its flip are two matrices an image, which are made on the
device from five numbers. Nothing here waits for the device, and every shape is fixed, so that a graph can replay it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedflair.data.images.crops import random_crop
from fedflair.data.images.decode import decode_rgb
from fedflair.data.images.jpeg import SIDE
from fedflair.data.images.preprocessing import IMAGENET, Interpolation, Preprocessing
from fedflair.errors import DataError


@dataclass(frozen=True)
class Normalisation:
    """The mean, and the inverse of the deviation, of values from 0 to 255: float32 [3] each, on a device.

    interpolation: of the resize before it.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    interpolation: Interpolation = "bilinear"


def normalisation(device: torch.device, wanted: Preprocessing = IMAGENET) -> Normalisation:
    """What a network wants of its inputs, on ``device``."""
    return Normalisation(*wanted.normalisation(device), wanted.interpolation)


def upload(array: npt.NDArray[np.generic] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of what the host has, on ``device``; where that is a GPU, one that the host does not wait for."""
    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def decode_to(encoded: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> torch.Tensor:
    """Pixels of encoded images: uint8 [n, SIDE, SIDE, 3] on ``device``, by way of pinned memory.

    Raises DataError for an image of another size, which no store made by fedflair has.
    """
    shape = (SIDE, SIDE, 3)
    pixels = torch.empty((len(encoded), *shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for row, image in zip(pixels.numpy(), encoded):
        decoded = decode_rgb(image)
        if decoded.shape != shape:
            height, width, _ = decoded.shape
            raise DataError(
                f"an image of {width}x{height} pixels; on a GPU a store's images must be {SIDE}x{SIDE}: "
                "make it with fedflair prepare, or use --device cpu"
            )
        row[...] = decoded
    return upload(pixels, device)


def random_crops(num_images: int, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Crops as ``cropped`` takes them, float32 [n, 5]: those that ``images.train_inputs`` would draw."""
    crops = [random_crop(SIDE, SIDE, generator) for _ in range(num_images)]
    return np.array(crops, dtype=np.float32).reshape(num_images, 5)


def whole_crops(num_images: int) -> npt.NDArray[np.float32]:
    """The crops that leave nothing out: float32 [n, 5]."""
    return np.tile(np.array([0, 0, SIDE, SIDE, 0], dtype=np.float32), (num_images, 1))


def whole_images(num_images: int, device: torch.device) -> torch.Tensor:
    """The same on ``device``."""
    return upload(whole_crops(num_images), device)


def cropped(pixels: torch.Tensor, crops: torch.Tensor, size: int, normalise: Normalisation) -> torch.Tensor:
    """Network inputs from pixels (uint8 [n, H, W, 3]): float32 [n, 3, size, size], channels-last.

    crops: float32 [n, 5], of each image top, left, height, width, and 1 where it is mirrored.

    As ``images.train_inputs`` makes them with the same crops: antialiased, rounded to 8 bits after either direction,
    with weights of 16 bits. One value in thousands may come out one level of 255 apart.
    """
    top, left, height, width, mirrored = crops.unbind(1)
    n, num_rows, num_columns, channels = pixels.shape
    kernel = _KERNELS[normalise.interpolation]
    across, across_unit = _resize_matrix(left, width, num_columns, size, kernel)
    across = torch.where(mirrored.view(-1, 1, 1) > 0, across.flip(1), across)
    down, down_unit = _resize_matrix(top, height, num_rows, size, kernel)
    columns = pixels.transpose(1, 2).reshape(n, num_columns, num_rows * channels).float()
    narrow = _rounded(torch.bmm(across, columns), across_unit).view(n, size, num_rows, channels)
    rows = narrow.transpose(1, 2).reshape(n, num_rows, size * channels)
    small = _rounded(torch.bmm(down, rows), down_unit).view(n, size, size, channels)
    return ((small - normalise.mean) * normalise.scale).permute(0, 3, 1, 2)


def _triangle(distance: torch.Tensor) -> torch.Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' kernel with a = -1/2, as Pillow and torch's antialiased resize have it."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, far * (distance < 2))


_KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"bilinear": _triangle, "bicubic": _cubic}


def _resize_matrix(
    start: torch.Tensor,
    length: torch.Tensor,
    side: int,
    size: int,
    kernel: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of ``side`` pixels in each of ``size`` that ``length`` of them from ``start`` on become, and their unit.

    (whole numbers [n, size, side], [n, 1, 1]), float32. A weight is the kernel around the output pixel's centre, wide
    enough to average what that stands for, cut off at the crop's edge. Torch's own resize of 8-bit images has weights
    below 2**15 in units of the smallest power of two that allows it.
    """
    start, length = start.double().view(-1, 1, 1), length.double().view(-1, 1, 1)
    scale = length / size
    centre = start + (_counted(size, start) + 0.5).view(1, -1, 1) * scale
    position = (_counted(side, start) + 0.5).view(1, 1, -1)
    weights = kernel((position - centre).abs() / scale.clamp(min=1))
    weights = weights * ((position > start) & (position < start + length))
    weights = weights / weights.sum(2, keepdim=True)
    bits = torch.log2((2**15 - 0.5) / weights.amax((1, 2), keepdim=True)).floor().clamp(max=22)
    return (weights * torch.exp2(bits) + 0.5).floor().float(), torch.exp2(-bits).float()


def _counted(stop: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(stop, dtype=like.dtype, device=like.device)


def _rounded(sums: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return sums.mul_(unit).add_(0.5).floor_().clamp_(0, 255)
