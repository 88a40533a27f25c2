"""What is done to whole vectors, by the kernels and by torch's own operators where those cannot read them."""

from __future__ import annotations

import pytest
import torch

from fedflair.engine import vector

SIZE = 1003


def vectors(gaps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters and gradients, float32 [SIZE]; with gaps in memory the kernels cannot read them."""
    values = torch.randn(2, SIZE, 2, generator=torch.Generator().manual_seed(0))
    return (values[0, :, 0], values[1, :, 0]) if gaps else (values[0, :, 0].clone(), values[1, :, 0].clone())


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("low", [False, True])
def test_a_step_down_the_gradient(gaps: bool, low: bool) -> None:
    parameters, gradients = vectors(gaps)
    expected = parameters.double() - 0.25 * gradients.double()
    rounded = torch.zeros(SIZE, dtype=torch.bfloat16) if low else None
    vector.descend(parameters, gradients, torch.tensor(0.25), rounded)
    torch.testing.assert_close(parameters.double(), expected, rtol=1e-6, atol=1e-6)
    if rounded is not None:
        assert torch.equal(rounded, parameters.bfloat16())


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("low", [False, True])
def test_loading(gaps: bool, low: bool) -> None:
    parameters, source = vectors(gaps)
    rounded = torch.zeros(SIZE, dtype=torch.bfloat16) if low else None
    vector.load(parameters, source, rounded)
    assert torch.equal(parameters, source)
    if rounded is not None:
        assert torch.equal(rounded, source.bfloat16())


@pytest.mark.parametrize("gaps", [False, True])
def test_norms_and_what_clips_them(gaps: bool) -> None:
    _, gradients = vectors(gaps)
    length = float(gradients.double().norm())
    assert float(vector.norm(gradients)) == pytest.approx(length, rel=1e-6)
    assert float(vector.clip_factor(gradients, length / 4)) == pytest.approx(0.25, rel=1e-5)
    assert float(vector.clip_factor(gradients, torch.tensor(length * 4))) == 1.0
    assert float(vector.clip_factor(torch.zeros(3), 1.0)) == 1.0


def test_new_vectors_are_their_own() -> None:
    left, right = vectors(gaps=False)
    made = [vector.difference(left, right), vector.quotient(left, 4.0), vector.copied(left)]
    for ours, expected in zip(made, [left - right, left / 4, left]):
        assert torch.equal(ours, expected)
    for one in made:
        one.zero_()
    assert float(left.abs().sum()) > 0
