"""Crops, flips and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from fedflair.data.images.crops import (
    decode,
    eval_inputs,
    normalise,
    random_crop,
    random_crop_box,
    resized,
    train_inputs,
)
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


def test_how_often_and_where_crops_are_drawn() -> None:
    generator = stream(1, "crop")
    crops = np.array([random_crop(256, 256, generator) for _ in range(4000)], dtype=float)
    top, left, height, width, mirrored = crops.T
    # Four standard deviations of 4,000 draws of a half are 0.032.
    assert abs(mirrored.mean() - 0.5) < 0.032
    # The last row and column are reached as often as the first.
    for start, length in ((top, height), (left, width)):
        small = length < 250
        first, last = (start[small] == 0).mean(), (start[small] + length[small] == 256).mean()
        assert 0.005 < first < 0.03 and 0.005 < last < 0.03
        assert abs((start[small] / (256 - length[small])).mean() - 0.5) < 0.025
    # Areas are uniform, ratios are in their logarithm, and neither axis is preferred; few whole ones are missed.
    areas, ratios = height * width / 65_536, np.log(width / height)
    assert abs(np.median(areas[areas < 0.6]) - 0.34) < 0.02
    assert abs(ratios.mean()) < 0.015
    assert 0.14 < ratios.std() < 0.18


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        # Taller or wider than any crop can be: the largest of an admissible ratio, in the middle.
        (1000, 90, (440, 0, 120, 90)),
        (90, 1000, (0, 440, 90, 120)),
        (1000, 1, (499, 0, 1, 1)),
    ],
)
def test_the_crop_after_ten_misses(height: int, width: int, box: tuple[int, ...]) -> None:
    class Misses:
        """Asks for the whole area at ratio 1, which fits neither side."""

        def uniform(self, low: float, high: float) -> float:
            return high if high == 1.0 else 0.0

    assert random_crop_box(height, width, Misses()) == box  # type: ignore[arg-type]


def test_training_inputs_are_mirrored_half_of_the_time() -> None:
    image = torch.arange(0, 256, 8, dtype=torch.uint8).expand(3, 32, 32)  # brighter to the right
    inputs = train_inputs([image] * 400, 16, stream(2, "crop"))
    brighter_left = (inputs[:, 0, :, 0] > inputs[:, 0, :, -1]).all(dim=1)
    assert abs(float(brighter_left.float().mean()) - 0.5) < 0.1
    assert ((inputs[:, 0, 0, 0] > inputs[:, 0, 0, -1]) == brighter_left).all()
