"""Winograd's convolutions against torch's direct ones in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from fedflair.engine.cpu import winograd_convolution as winograd
from fedflair.engine.cpu.kernels import library
from fedflair.engine.cpu.matrix_convolution import Geometry

PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1))

pytestmark = pytest.mark.skipif(library() is None, reason="this machine has no C compiler")


def channels_last(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


# Odd and even sides, one pixel, more tiles than are worked on at once, fewer outputs than inputs and the reverse.
@pytest.mark.parametrize(
    ("images", "inputs", "outputs", "height", "width"),
    [
        (2, 32, 64, 14, 14),
        (3, 64, 32, 7, 7),
        (1, 32, 32, 1, 1),
        (2, 96, 32, 5, 8),
        (1, 32, 96, 2, 3),
        (5, 64, 64, 9, 15),
        (1, 256, 160, 13, 6),
        (3, 32, 32, 31, 17),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.006)])
def test_output_and_both_gradients(
    images: int, inputs: int, outputs: int, height: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    x, weight, dy = (
        channels_last(*shape, seed=seed).to(dtype)
        for seed, shape in enumerate(
            [(images, inputs, height, width), (outputs, inputs, 3, 3), (images, outputs, height, width)]
        )
    )
    if not winograd.fits(weight, PLAIN):
        pytest.skip("this processor has no products of bfloat16s")
    exact_x, exact_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = conv2d(exact_x, exact_weight, padding=1)
    dx, dw = torch.autograd.grad(y, (exact_x, exact_weight), dy.double())
    # One for all three, full of what is not a number: nothing in it may matter.
    scratch = winograd.Scratch(torch.full((10_000_000,), torch.nan))
    assert distance(winograd.forward(x, weight, scratch), y.detach()) < tolerance
    assert distance(winograd.input_gradient(dy, weight, scratch), dx) < tolerance
    out = torch.full_like(weight, torch.nan, dtype=torch.float32)
    assert winograd.weight_gradient(dy, x, out, scratch) is out
    assert distance(out, dw) < max(tolerance, 1e-5)


def test_what_is_not_a_number_stays_visible() -> None:
    x, weight = channels_last(1, 32, 8, 8, seed=0), channels_last(32, 32, 3, 3, seed=1)
    x[0, 3, 4, 4] = torch.inf
    assert not winograd.forward(x, weight, winograd.Scratch())[0, :, 4, 4].isfinite().any()


def test_which_convolutions_are_done_so() -> None:
    weight = torch.zeros(64, 32, 3, 3)
    assert winograd.fits(weight, PLAIN)
    assert not winograd.fits(weight.double(), PLAIN)
    assert not winograd.fits(torch.zeros(64, 48, 3, 3), PLAIN)
    assert not winograd.fits(weight, Geometry((3, 3), (2, 2), (1, 1), (1, 1)))
    assert not winograd.fits(weight, Geometry((3, 3), (1, 1), (0, 0), (1, 1)))
    assert winograd.num_tiles(torch.zeros(1, 512, 7, 7)) == winograd.num_tiles(torch.zeros(4, 512, 4, 4)) == 16
    assert winograd.num_tiles(torch.zeros(3, 512, 4, 5)) == 18


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("images", "channels", "outputs", "side"), [(1, 64, 32, 9), (3, 32, 160, 14), (9, 160, 128, 12)]
)
def test_nothing_is_written_beyond_the_scratch_that_is_asked_for(
    images: int, channels: int, outputs: int, side: int, dtype: torch.dtype
) -> None:
    x = channels_last(images, channels, side, side, seed=0).to(dtype)
    dy = channels_last(images, outputs, side, side, seed=1).to(dtype)
    weight = channels_last(outputs, channels, 3, 3, seed=2).to(dtype)
    if not winograd.fits(weight, PLAIN):
        pytest.skip("this processor has no products of bfloat16s")
    kernels = library()
    assert kernels is not None
    sizes = [kernels.winograd_scratch(images, side, side, *pair) for pair in ((channels, outputs), (outputs, channels))]
    for size, call in (
        (sizes[0], lambda scratch: winograd.forward(x, weight, scratch)),
        (sizes[1], lambda scratch: winograd.input_gradient(dy, weight, scratch)),
        (sizes[0], lambda scratch: winograd.weight_gradient(dy, x, torch.empty_like(weight).float(), scratch)),
    ):
        memory = torch.full((size + 4096,), 7.0)
        call(winograd.Scratch(memory))
        assert (memory[size:] == 7.0).all()
        assert (memory[:size] != 7.0).any()
