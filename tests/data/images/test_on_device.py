"""Crops as matrix products against torchvision's, one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedflair.data.images.crops import decode, eval_inputs, normalise, resized, train_inputs
from fedflair.data.images.on_device import cropped, decode_to, normalisation, random_crops, upload, whole_images
from fedflair.data.images.preprocessing import IMAGENET, Interpolation, Preprocessing
from fedflair.errors import DataError
from fedflair.sampling import stream
from tests.conftest import jpeg

CPU = torch.device("cpu")


def photographs(count: int) -> list[np.ndarray]:
    return [np.frombuffer(jpeg(k), dtype=np.uint8) for k in range(count)]


def levels(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far normalised pixels are apart, in levels of 255."""
    return ((one - other) * torch.tensor(IMAGENET.deviation).view(1, 3, 1, 1) * 255).abs()


@pytest.mark.parametrize("size", [32, 224, 300])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_equal_torchvisions(size: int, noise: bool, interpolation: Interpolation) -> None:
    # 300 enlarges every crop, 32 shrinks most, 224 does both.
    if noise:
        pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 256, 256, 3), dtype=np.uint8))
    else:
        pixels = decode_to(photographs(16), CPU)
    wanted = Preprocessing(interpolation=interpolation)
    one_by_one = train_inputs(list(pixels.permute(0, 3, 1, 2)), size, stream(0, "crop"), wanted)
    crops = torch.from_numpy(random_crops(16, stream(0, "crop")))
    together = cropped(pixels, crops, size, normalisation(CPU, wanted))
    assert together.shape == (16, 3, size, size)
    assert together.is_contiguous(memory_format=torch.channels_last)
    off = levels(one_by_one, together)
    assert float(off.max()) < 1.01
    assert float((off > 0.5).float().mean()) < 1e-4


def test_the_random_stream_goes_on_where_the_hosts_does() -> None:
    images = decode(photographs(5))
    one, other = stream(0, "crop"), stream(0, "crop")
    train_inputs(images, 16, one)
    crops = random_crops(5, other)
    assert one.random() == other.random()
    assert crops.dtype == np.float32
    assert set(crops[:, 4]) == {0.0, 1.0}


def test_a_crop_by_hand() -> None:
    # Rows 2 and 3 of a 4 x 4 image, columns 0 to 3, at half of its width and the same height, mirrored.
    pixels = torch.arange(16, dtype=torch.uint8).view(1, 4, 4, 1).expand(1, 4, 4, 3) * 10
    plain = normalisation(CPU)
    plain.mean.zero_()
    plain.scale.fill_(1.0)
    crops = torch.tensor([[2.0, 0.0, 2.0, 4.0, 1.0]])
    # Antialiased, an output pixel weighs four columns 1 : 3 : 3 : 1, less what lies outside:
    # (3 * 80 + 3 * 90 + 100) / 7 = 87.1 and (90 + 3 * 100 + 3 * 110) / 7 = 102.9; mirrored.
    assert cropped(pixels, crops, 2, plain)[0, 0].tolist() == [[103.0, 87.0], [143.0, 127.0]]


def test_whole_images_are_the_evaluations() -> None:
    encoded = photographs(3)
    expected = eval_inputs(decode(encoded), 100)
    ours = cropped(decode_to(encoded, CPU), whole_images(3, CPU), 100, normalisation(CPU))
    assert float(levels(expected, ours).max()) < 1.01


def test_an_image_of_another_size_is_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"100x100 pixels.*fedflair prepare.*--device cpu"):
        decode_to([np.frombuffer(jpeg(1, side=100), dtype=np.uint8)], CPU)


def test_upload_copies_nothing_on_a_cpu() -> None:
    array = np.arange(3)
    assert upload(array, CPU).data_ptr() == array.ctypes.data


def test_the_devices_crops_are_mirrored_and_placed_as_the_hosts() -> None:
    crops = random_crops(4000, stream(3, "crop"))
    assert abs(crops[:, 4].mean() - 0.5) < 0.032
    for start, length in ((0, 2), (1, 3)):
        small = crops[crops[:, length] < 250]
        assert 0.005 < (small[:, start] + small[:, length] == 256).mean() < 0.03


@pytest.mark.parametrize("crop", [(0, 0, 200, 100), (56, 156, 200, 100), (255, 0, 1, 256), (0, 255, 256, 1)])
def test_crops_at_the_edges_have_the_hosts_pixels(crop: tuple[int, int, int, int]) -> None:
    pixels = decode_to(photographs(1), CPU)
    top, left, height, width = crop
    host = resized(pixels[0].permute(2, 0, 1)[:, top : top + height, left : left + width], 64)
    for mirrored in (0.0, 1.0):
        ours = cropped(pixels, torch.tensor([[*map(float, crop), mirrored]]), 64, normalisation(CPU))
        expected = normalise((host.flip(2) if mirrored else host)[None])
        assert float(levels(ours, expected).max()) < 1.01
