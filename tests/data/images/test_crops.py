"""Crops, flips and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from fedflair.data.images.crops import decode, eval_inputs, normalise, random_crop_box, resized, train_inputs
from fedflair.sampling import stream
from tests.conftest import jpeg


def test_decode_gives_the_pixels_of_the_file() -> None:
    pixels = decode([np.frombuffer(jpeg(1), dtype=np.uint8)])
    assert pixels[0].shape == (3, 256, 256)
    assert pixels[0].dtype == torch.uint8


def test_normalisation_by_hand() -> None:
    pixels = torch.tensor([0, 255, 128], dtype=torch.uint8).view(1, 3, 1, 1)
    values = normalise(pixels).flatten().tolist()
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert np.allclose(values, expected, atol=1e-6)


def test_every_crop_is_inside_and_within_the_published_ranges() -> None:
    generator = stream(0, "crop")
    areas = []
    for _ in range(2000):
        top, left, height, width = random_crop_box(256, 256, generator)
        assert 0 <= top <= 256 - height
        assert 0 <= left <= 256 - width
        assert 0.7 < width / height < 1.43
        areas.append(height * width / 256**2)
    assert 0.07 < min(areas) < 0.12
    assert 0.9 < max(areas) <= 1.0


def test_each_image_gets_its_own_crop() -> None:
    image = decode([np.frombuffer(jpeg(1), dtype=np.uint8)])[0]
    inputs = train_inputs([image, image, image], 32, stream(0, "crop"))
    assert inputs.shape == (3, 3, 32, 32)
    assert not torch.equal(inputs[0], inputs[1])
    assert torch.equal(inputs, train_inputs([image, image, image], 32, stream(0, "crop")))


@pytest.mark.parametrize(("height", "width", "size"), [(256, 192, 224), (40, 50, 224), (224, 224, 224), (333, 500, 32)])
def test_pixels_are_resized_as_torchvision_does(height: int, width: int, size: int) -> None:
    generator = torch.Generator().manual_seed(height)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).permute(2, 0, 1)
    assert torch.equal(resized(pixels, size), functional.resize(pixels, [size, size], antialias=True))
    crop = functional.resized_crop(pixels, 3, 5, height // 2, width // 3, [size, size], antialias=True)
    assert torch.equal(resized(pixels[:, 3 : 3 + height // 2, 5 : 5 + width // 3], size), crop)


def test_evaluation_resizes_the_whole_image() -> None:
    image = torch.zeros(3, 256, 256, dtype=torch.uint8)
    image[:, :, 128:] = 255
    inputs = eval_inputs([image], 16)[0]
    assert (inputs[:, :, :7] < -1.5).all()
    assert (inputs[:, :, 9:] > 1.5).all()
