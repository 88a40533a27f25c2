"""b-min-separation: the likelihood ratio and its moments against every pattern, the proofs' claims on grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.privacy.accounting.b_min_separation import log_likelihood_ratio, rate_when_free
from fedflair.privacy.accounting.replicas import make_tilt, num_states, tilted_rows
from fedflair.privacy.mechanisms.correlated.strategy import toeplitz_matrix
from fedflair.privacy.toeplitz import optimal_coefficients
from tests.properties import examples

Array = npt.NDArray[np.float64]


def patterns(num_rounds: int, b: int, rate: float) -> list[tuple[float, tuple[int, ...]]]:
    """(chance, rounds) of every pattern, from coins tossed one after the other."""
    p = rate / (1 - (b - 1) * rate)
    # (chance, rounds, the first round in which the user is free)
    ways: list[tuple[float, tuple[int, ...], int]] = [(1 - (b - 1) * rate, (), 0)]
    ways += [(rate, (), b - ago) for ago in range(1, b)]
    for round_ in range(num_rounds):
        following = []
        for chance, rounds, free_at in ways:
            if free_at > round_:
                following.append((chance, rounds, free_at))
            else:
                following.append((chance * (1 - p), rounds, free_at))
                following.append((chance * p, (*rounds, round_), round_ + b))
        ways = following
    return [(chance, rounds) for chance, rounds, _ in ways]


def means_of(num_rounds: int, column: Array, rate: float) -> tuple[Array, Array]:
    """(chances [patterns], means [patterns, rounds]) by the dense matrix C."""
    every = patterns(num_rounds, len(column), rate)
    joined = np.array([[float(t in rounds) for t in range(num_rounds)] for _, rounds in every])
    return np.array([chance for chance, _ in every]), joined @ toeplitz_matrix(column, num_rounds).T


def log_ratio_of(rows: Array, chances: Array, means: Array) -> Array:
    """log L of rows, float64 [rounds, n], summed over all patterns."""
    return np.asarray(np.log(chances @ np.exp(means @ rows - (means**2).sum(axis=1)[:, None] / 2)))


CASES = [(2, 6, 0.2), (3, 8, 0.2), (4, 3, 0.25), (3, 9, 1 / 3), (5, 12, 0.05), (2, 1, 0.3)]


@pytest.mark.parametrize(("b", "num_rounds", "rate"), CASES)
def test_the_likelihood_ratio_is_the_sum_over_every_pattern(b: int, num_rounds: int, rate: float) -> None:
    random = np.random.default_rng(b)
    column, rows = np.sort(random.random(b))[::-1], 2 * random.standard_normal((num_rounds, 5))
    chances, means = means_of(num_rounds, column, rate)
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    found = log_likelihood_ratio(iter(rows), column, rate)
    np.testing.assert_allclose(found, log_ratio_of(rows, chances, means), rtol=1e-12, atol=1e-13)


def test_a_ratio_too_large_for_a_float_is_still_told_by_its_logarithm() -> None:
    column, random = np.array([8.0, 6.0]), np.random.default_rng(0)
    seen = np.zeros((40, 1))
    for round_ in range(0, 40, 2):
        seen[round_ : round_ + 2, 0] = column
    rows = seen + random.standard_normal((40, 1))
    (found,) = log_likelihood_ratio(iter(rows), column, 0.1)
    # The pattern that it was stands out: its own term is all but the whole sum.
    p = rate_when_free(0.1, 2)
    own = float((rows * seen).sum() - (seen**2).sum() / 2) + math.log(0.9 * p) + 19 * math.log(p)
    assert found > 900
    assert found == pytest.approx(own, rel=1e-9)


def test_a_ratio_too_small_for_a_float_and_contributions_beyond_all_noise_are_told_too() -> None:
    """What an audit meets: who was never in a run of secret phases, and the noise of a deployment in a small run."""
    rows, column = np.random.default_rng(0).standard_normal((400, 1)), np.array([8.0, 6.0])
    phases = [float(rows[k::2].sum() * 8 + rows[k + 1 :: 2].sum() * 6) - 50 * 200 for k in (0, 1)]
    (found,) = log_likelihood_ratio(iter(rows), column, 0.5)
    # The second phase's last column is cut off, and somebody's last round was before the first.
    phases[1] += 18
    assert found == pytest.approx(np.logaddexp(*phases) - math.log(2), rel=1e-9)
    (found,) = log_likelihood_ratio(iter(rows[:3]), 1000 * column, 0.1)
    assert found == pytest.approx(math.log(0.9 * (8 / 9) ** 3 + 0.1 * (8 / 9) ** 2), abs=1e-9)


def test_runs_are_drawn_where_some_states_are_too_rare_for_a_float() -> None:
    """Phases never change, so that two users in one are ahead by more than numbers hold."""
    tilt = make_tilt(np.array([4.0, 1.0]), 0.5, 400, 2)
    assert tilt is not None and (tilt.sums[-1] == 0).any()
    rows = np.array(list(tilted_rows(tilt, 50, np.random.default_rng(0))))
    assert {round(x) for x in rows[2:].reshape(-1, 2, 50).mean(axis=(1, 2))} == {5}


def test_with_one_place_left_for_everybody_it_is_the_mean_over_phases_up_to_64_rounds() -> None:
    column, random = optimal_coefficients(64, 8) / 2, np.random.default_rng(0)
    rows = random.standard_normal((64, 4))
    phases = np.array([[float(t % 8 == phase) for t in range(64)] for phase in range(8)])
    means = phases @ toeplitz_matrix(column, 64).T
    expected = log_ratio_of(rows, np.full(8, 1 / 8), means)
    np.testing.assert_allclose(log_likelihood_ratio(iter(rows), column, 1 / 8), expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("b", "num_rounds", "rate", "order"), [(2, 6, 0.2, 2), (2, 4, 0.2, 5), (3, 6, 0.2, 3), (3, 5, 1 / 3, 4)]
)
def test_a_moment_is_the_sum_over_every_tuple_of_patterns(b: int, num_rounds: int, rate: float, order: int) -> None:
    column = np.linspace(1.1, 0.3, b)
    chances, means = means_of(num_rounds, column, rate)
    # Patterns with the same mean are one.
    means, place = np.unique(means, axis=0, return_inverse=True)
    chances, squares = np.bincount(place.ravel(), chances), (means**2).sum(axis=1)
    total = 0.0
    for chosen in itertools.product(range(len(chances)), repeat=order):
        sums = means[list(chosen)].sum(axis=0)
        total += math.prod(chances[list(chosen)]) * math.exp((sums @ sums - squares[list(chosen)].sum()) / 2)
    tilt = make_tilt(column, rate, num_rounds, order)
    assert tilt is not None
    assert tilt.log_moment == pytest.approx(math.log(total), abs=1e-12)


def test_runs_that_are_drawn_have_the_density_that_they_are_weighted_with() -> None:
    """E over the tilt of E_Q L^a / L^(a - k) is E_Q L^k, which is 1 for k = 0 and k = 1."""
    column, rate, num_rounds = np.array([0.3, 0.2, 0.1]), 0.1, 40
    tilt = make_tilt(column, rate, num_rounds, 3)
    assert tilt is not None
    random = np.random.default_rng(0)
    ratios = log_likelihood_ratio(tilted_rows(tilt, 1 << 16, random), column, rate)
    for power in (0, 1):
        weights = np.exp(tilt.log_moment - (3 - power) * ratios)
        assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(len(weights))
        assert weights.std() / math.sqrt(len(weights)) < 0.01


def test_a_separation_of_forty_rounds_is_counted_like_one_of_three() -> None:
    """In two rounds nobody is back after 40, so that P is known: nothing, a whole column, or one that is cut off."""
    column, rate = np.concatenate([[0.5, 0.3], np.zeros(38)]), 0.02
    p = rate / (1 - 39 * rate)
    # Free from the first round on, or from the second on, or later.
    first, second = (1 - 39 * rate) * p, (1 - 39 * rate) * (1 - p) * p + rate * p
    means = np.array([[0.0, 0.0], [0.5, 0.3], [0.0, 0.5]])
    chances = np.array([1 - first - second, first, second])
    total = sum(
        chances[list(three)].prod() * math.exp(sum(means[i] @ means[j] for i, j in itertools.combinations(three, 2)))
        for three in itertools.product(range(3), repeat=3)
    )
    tilt = make_tilt(column, rate, 2, 3)
    assert tilt is not None
    assert tilt.log_moment == pytest.approx(math.log(total), abs=1e-12)


def test_far_from_the_end_all_rounds_are_alike() -> None:
    """A moment over many rounds, of which most are taken in one step, is that of as many steps, one by one."""
    column, rate = np.array([0.6, 0.5, 0.3]), 0.02
    log_moments = []
    for num_rounds in (400, 401, 402, 4000):
        tilt = make_tilt(column, rate, num_rounds, 4)
        assert tilt is not None
        assert len(tilt.sums) < 100
        log_moments.append(tilt.log_moment)
    steps = np.diff(log_moments[:3])
    assert steps[0] == pytest.approx(steps[1], rel=1e-9)
    assert log_moments[3] == pytest.approx(log_moments[0] + 3600 * steps[0], rel=1e-8)


def test_what_takes_too_much_is_not_computed() -> None:
    assert num_states(8, 8) == 6435
    # More states than there may be, and a row that multiplies by more than a number can hold.
    assert make_tilt(np.full(64, 0.1), 0.001, 10, 5) is None
    assert make_tilt(np.full(2, 30.0), 0.1, 10, 2) is None
    # Everybody has a phase that never changes: nothing ever becomes alike, and all rounds would have to be kept.
    assert make_tilt(np.linspace(0.2, 0.05, 16), 1 / 16, 5000, 5) is None


def grid(num_rounds: int) -> tuple[Array, Array]:
    """(rows [rounds, points], what each point weighs under independent noise)."""
    x = np.linspace(-9, 9, {1: 20_001, 2: 401}[num_rounds])
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    rows = np.array(list(itertools.product(x, repeat=num_rounds))).T
    return rows, np.prod([density[np.searchsorted(x, row)] for row in rows], axis=0)


def given_away(ratio: Array, weights: Array, eps: float) -> tuple[float, float]:
    """Both hockey-stick divergences, of the user's being left out and of its being put in."""
    return (
        float((np.maximum(ratio - math.exp(eps), 0) * weights).sum()),
        float((np.maximum(1 - math.exp(eps) * ratio, 0) * weights).sum()),
    )


ENTRY = st.floats(0.0, 2.0)


@examples(12)
@given(
    columns=st.lists(st.tuples(ENTRY, ENTRY), min_size=1, max_size=6),
    weights=st.lists(st.floats(0.01, 1.0), min_size=7, max_size=7),
)
def test_leaving_out_is_told_no_better_than_putting_in(
    columns: Sequence[tuple[float, float]], weights: Sequence[float]
) -> None:
    """Of any mixture of Gaussians of one scale against one of them, not only of patterns."""
    rows, densities = grid(2)
    means = np.array([(0.0, 0.0), *columns])
    chances = np.array(weights[: len(means)])
    ratio = np.exp(log_ratio_of(rows, chances / chances.sum(), means))
    for eps in (0.0, 0.1, 0.7, 2.0, 5.0):
        put_in, left_out = given_away(ratio, densities, eps)
        # Steps of 0.045: what is lost where the integrand begins is its slope times a step squared over 8.
        assert left_out <= put_in + 1e-3


@examples(6)
@given(
    angles=st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3),
    lengths=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    turn=st.floats(-2.0, 2.0),
)
def test_contributions_all_alike_are_the_worst(angles: list[float], lengths: list[float], turn: float) -> None:
    """Two rounds of two numbers each; the second contribution's direction follows what the first round released."""
    x = np.linspace(-6, 6, 31)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    first = np.array(list(itertools.product(x, repeat=2))).T
    weights = np.prod([density[np.searchsorted(x, row)] for row in first], axis=0)
    column, rate = (1.5, 1.0), 0.25
    every = patterns(2, 2, rate)

    def vector(number: int, angle: Array | float) -> Array:
        return lengths[number] * np.array([np.cos(angle), np.sin(angle)])

    own = vector(0, angles[0])[:, None]
    ratio = np.zeros((first.shape[1], first.shape[1]))
    for chance, rounds in every:
        mean = own * column[0] * (0 in rounds) * np.ones(first.shape[1])
        one = np.exp((mean * first).sum(axis=0) - (mean**2).sum(axis=0) / 2)
        # What the second row has of both, for each outcome of the first.
        later = own * column[1] * (0 in rounds)
        later = later + vector(1, angles[1] + turn * first[0]) * column[0] * (1 in rounds)
        two = np.exp(later.T @ first - (later**2).sum(axis=0)[:, None] / 2)
        ratio += chance * one[:, None] * two
    alike, alike_weights = grid(2)
    chances, means = means_of(2, np.array(column), rate)
    worst = np.exp(log_ratio_of(alike, chances, means))
    for eps in (0.0, 0.5, 1.5):
        found = given_away(ratio, weights[:, None] * weights[None, :], eps)
        bound = given_away(worst, alike_weights, eps)
        # A coarse grid of steps of 0.4: errors of some 1e-3 where the integrand begins.
        assert found[0] <= bound[0] + 4e-3
        assert found[1] <= bound[1] + 4e-3


def test_the_rate_of_who_is_free() -> None:
    assert rate_when_free(0.1, 1) == 0.1
    assert rate_when_free(0.1, 4) == pytest.approx(0.1 / 0.7)
    assert rate_when_free(1 / 7, 7) == pytest.approx(1)
    assert rate_when_free(1 / 3, 3) <= 1
