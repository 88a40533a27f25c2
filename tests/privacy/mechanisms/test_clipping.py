from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedflair.errors import ConfigError
from fedflair.privacy.mechanisms import PrivacyOptions, clipping, make_mechanism
from fedflair.privacy.mechanisms.clipping import clip_update, exact_grid, vector_norm
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 10, 1000)


@pytest.mark.parametrize(("order", "expected"), [(1.0, 7.0), (2.0, 5.0), (3.0, 91 ** (1 / 3)), (math.inf, 4.0)])
def test_norms_of_a_small_vector(order: float, expected: float) -> None:
    assert vector_norm(torch.tensor([3.0, 0.0, -4.0]), order) == pytest.approx(expected, rel=1e-12)


def test_norm_is_accumulated_in_float64() -> None:
    # In float32 neither 1e8 + 1 nor 1e8 + 2 is a number.
    update = torch.ones(1_000_001)
    update[0] = 1e4
    assert vector_norm(update, 2.0) == pytest.approx(math.sqrt(1e8 + 1e6), rel=1e-15)
    update[0] = 1e8
    assert vector_norm(update, 1.0) == 1e8 + 1e6


@pytest.mark.parametrize("order", [1.5, 30.0])
def test_norms_of_any_order_neither_overflow_nor_underflow(order: float) -> None:
    for size in (1e-38, 1e38):
        assert vector_norm(torch.full((4,), size), order) == pytest.approx(size * 4 ** (1 / order), rel=1e-6)


def test_clipping_by_hand() -> None:
    update = torch.tensor([3.0, -4.0])
    assert clip_update(update, 10.0).clipped is False
    assert update.tolist() == [3.0, -4.0]
    result = clip_update(update, 0.1)
    assert (result.norm, result.clipped, result.rejected) == (5.0, True, False)
    assert update.tolist() == pytest.approx([0.06, -0.08], rel=1e-6)


@given(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    st.floats(1e-6, 1e6),
    st.sampled_from([1.0, 2.0, 3.5, math.inf]),
)
def test_what_is_clipped_is_never_longer_than_the_bound(values: np.ndarray, bound: float, order: float) -> None:
    update = torch.from_numpy(values.copy())
    result = clip_update(update, bound, order)
    after = vector_norm(update, order)
    assert after <= bound
    if result.rejected:
        assert not np.isfinite(values).all()
        assert after == 0.0
    elif result.clipped:
        assert after >= bound * (1 - 1e-5)
    else:
        assert torch.equal(update, torch.from_numpy(values))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["none", "norm_clipping_only", "gaussian", "gaussian_moments_accountant", "laplace"])
def test_an_update_that_is_not_finite_counts_as_zero(name: str, bad: float) -> None:
    mechanism = make_mechanism(PrivacyOptions(name, delta=1e-4), SAMPLER, 3, noise_seed=1)
    update = torch.ones(1000)
    update[777] = bad
    result = mechanism.clip(update, mechanism.clipping_bound(mechanism.init(1000)))
    assert result.rejected and not result.clipped
    assert torch.count_nonzero(update) == 0


def test_none_changes_nothing() -> None:
    mechanism = make_mechanism(PrivacyOptions(), SAMPLER, 3, noise_seed=1)
    update = torch.full((5,), 1e30)
    state = mechanism.init(5)
    assert mechanism.clipping_bound(state) == math.inf
    assert not mechanism.clip(update, math.inf).clipped
    assert update.tolist() == torch.full((5,), 1e30).tolist()
    assert mechanism.event(3) is None
    assert mechanism.description == {}


def test_norm_clipping_only_in_any_order_promises_nothing() -> None:
    options = PrivacyOptions("norm_clipping_only", clipping_bound=2.0, order=math.inf)
    mechanism = make_mechanism(options, SAMPLER, 3, noise_seed=1)
    update = torch.tensor([1.0, -8.0])
    mechanism.clip(update, mechanism.clipping_bound({}))
    assert update.tolist() == pytest.approx([0.25, -2.0], rel=1e-6)
    assert mechanism.description["epsilon"] is None
    assert "not private" in mechanism.description["words"]
    with pytest.raises(ConfigError, match=r"central_order: 0\.5"):
        make_mechanism(PrivacyOptions("norm_clipping_only", order=0.5), SAMPLER, 3, noise_seed=1)


def test_sums_of_thousands_of_clipped_updates_are_exact_and_no_client_moves_one_by_more_than_the_bound() -> None:
    cohort_size, bound = 5000, 0.1
    step = exact_grid(bound, cohort_size)
    directions = torch.randn(64, generator=torch.Generator().manual_seed(0))
    plain = directions.clone()
    clip_update(plain, bound)
    updates = []
    for scale in (10.0, 1.0, 0.01):
        update = directions * scale
        clip_update(update, bound, 2.0, step)
        updates.append(update)
    aligned = [updates[k % 3] for k in range(cohort_size)]
    total, backwards, rounded = torch.zeros(64), torch.zeros(64), torch.zeros(64)
    for here, there in zip(aligned, reversed(aligned)):
        total, backwards, rounded = total + here, backwards + there, rounded + plain
    assert torch.equal(total, backwards)
    assert torch.equal(total.double(), torch.stack(aligned).double().sum(0))
    without = torch.zeros(64)
    for update in aligned[1:]:
        without += update
    assert float((total.double() - without.double()).norm()) <= bound
    # Without the grid, the roundings of so long a sum are larger than any slack that calibration leaves.
    assert float((rounded.double() - cohort_size * plain.double()).norm()) > 1e-5 * bound


@pytest.mark.parametrize("factor", [1.0, 0.37, 2.0**-30])
def test_cutting_to_the_grid_is_the_same_with_and_without_kernels(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(10_001, generator=torch.Generator().manual_seed(1)) * 1e-3 / factor
    cut = []
    for kernels in (clipping.library, lambda: None):
        monkeypatch.setattr(clipping, "library", kernels)
        update = values.clone()
        clipping._scale_onto(update, factor, 2.0**-20)
        cut.append(update)
    assert torch.equal(cut[0], cut[1])
    exact = np.trunc(values.double().numpy() * factor * 2.0**20) * 2.0**-20
    assert np.abs(cut[0].double().numpy() - exact).max() <= 2.0**-20
    assert bool((cut[0].abs().double() <= values.abs().double() * factor * (1 + 2.0**-23)).all())


def test_the_grid_leaves_room_for_the_whole_cohort() -> None:
    for bound, cohort_size in ((0.1, 5000), (1.0, 1), (3.7, 200), (1e-30, 10)):
        step = exact_grid(bound, cohort_size)
        assert bound * 2 * cohort_size <= 2**24 * step < 4 * bound * (2 * cohort_size + 64)
