"""Bounds of groups of parameters: what one client moves, where the noise goes, and quantiles that are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedflair.errors import PrivacyError
from fedflair.privacy.contract import ParameterGroups, binding_of
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.group_clipping import clip_groups
from fedflair.privacy.mechanisms.noise import noise_key, scalar_normal, scalar_normals
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 100, 1000)
SEED = 5 << 90
# The body comes in two runs, around the head's one.
GROUPS = ParameterGroups(("body", "head"), ((0, 3000), (1, 500), (0, 6000)))


def made(**changes: object) -> Mechanism:
    options = {
        "mechanism": "gaussian_moments_accountant", "delta": 1e-5, "adaptive_clipping": True,
        "clipping_groups": "blocks", "groups": GROUPS, **changes,
    }  # fmt: skip
    return make_mechanism(PrivacyOptions(**options), SAMPLER, 50, SEED)  # type: ignore[arg-type]


def at(mechanism: Mechanism, *bounds: float) -> dict[str, torch.Tensor]:
    return {**mechanism.init(0), "clipping_bound": torch.tensor(bounds, dtype=torch.float64)}


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.1, 7.0), (30.0, 0.2)])
def test_sum_and_counts_cost_what_one_release_costs_and_no_split_has_less_noise(bounds: tuple[float, float]) -> None:
    mechanism = made()
    facts, state, grouped = mechanism.description, at(mechanism, *bounds), mechanism.grouped
    assert grouped is not None
    stds = grouped.noise_stds(state, 3)
    # Each group of an update over its noise, and a half over the noise of each count: one client moves 1 / z in all.
    moved = math.hypot(*(c / s for c, s in zip(bounds, stds)), *[0.5 / facts["count_noise_std"]] * 2)
    assert moved == pytest.approx(1 / facts["noise_multiplier"], rel=1e-12)
    sizes = np.array(GROUPS.sizes)
    assert sizes.tolist() == [9000, 500]
    assert mechanism.noise_std(state, 3) == pytest.approx(math.sqrt(sizes @ np.square(stds) / 9500), rel=1e-12)
    for tilt in (0.9, 1.1, 2.0):
        # The same length of a client over the noise, shared otherwise: more noise in all.
        other = np.array([stds[0] * tilt, 0.0])
        left = sum((c / s) ** 2 for c, s in zip(bounds, stds)) - (bounds[0] / other[0]) ** 2
        if left > 0:
            other[1] = bounds[1] / math.sqrt(left)
            assert sizes @ other**2 > sizes @ np.square(stds)
    # Counts cost together what one would.
    assert facts["count_noise_std"] == pytest.approx(math.sqrt(2) * 5.0, rel=1e-12)
    assert facts["epsilon"] == pytest.approx(2.0, rel=1e-4)
    assert facts["clipping_groups"] == {"body": 9000, "head": 500}
    assert "(body 9,000, head 500 parameters)" in facts["words"]


def test_groups_are_clipped_apart() -> None:
    update = torch.cat([torch.full((3000,), 1.0), torch.full((500,), 0.25), torch.full((6000,), -2.0)])
    update[100] = 40.0
    before, clip = update.clone(), clip_groups(GROUPS, 100)
    body = math.sqrt(2999 + 1600 + 4 * 6000)
    result = clip(update, (body / 4, 6.0))
    assert (result.clipped, result.rejected, result.groups) == (True, False, (True, False))
    assert result.norm == pytest.approx(math.hypot(body, 0.25 * math.sqrt(500)), rel=1e-6)
    torch.testing.assert_close(update[:3000], before[:3000] / 4, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(update[3500:], before[3500:] / 4, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(update[3000:3500], before[3000:3500], rtol=0, atol=1e-4)
    assert math.hypot(float(update[:3000].double().norm()), float(update[3500:].double().norm())) <= body / 4
    update[3200] = math.nan
    assert clip(update, (1.0, 1.0)).rejected
    assert not update.any()
    with pytest.raises(PrivacyError, match="clipping_groups: made for another network than one of 7 parameters"):
        clip(torch.zeros(7), (1.0, 1.0))


def test_noise_goes_where_it_is_accounted_and_bounds_move_by_hand() -> None:
    mechanism = made(clipping_bound=1.0, adaptive_clipping_quantile=0.3, adaptive_clipping_learning_rate=0.4)
    state = at(mechanism, 0.2, 3.0)
    assert mechanism.init(0)["clipping_bound"].tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert mechanism.grouped is not None
    total, after = mechanism.add_noise(torch.zeros(9500), CohortStats(110, 40, 10, (), (20, 40)), 4, state)
    body, head = mechanism.grouped.noise_stds(state, 4)
    assert float(total[:3000].std()) == pytest.approx(body, rel=0.06)
    assert float(total[3500:].std()) == pytest.approx(body, rel=0.05)
    assert float(total[3000:3500].std()) == pytest.approx(head, rel=0.15)
    key = noise_key(SEED, 4, binding_of(after))
    noises = scalar_normals(key, 2)
    assert noises[0] == scalar_normal(key)
    for whole, noise, before, moved in zip((80, 60), noises, (0.2, 3.0), after["clipping_bound"].tolist()):
        share = (whole - 55 + mechanism.description["count_noise_std"] * noise) / 100 + 0.5
        assert moved == pytest.approx(before * math.exp(-0.4 * (share - 0.3)), rel=1e-6)
    again, _ = mechanism.add_noise(torch.zeros(9500), CohortStats(110, 40, 10, (), (20, 40)), 4, state)
    assert torch.equal(total, again)


def test_each_bound_finds_the_quantile_of_its_group() -> None:
    mechanism, state = made(clipping_bound=0.1), made(clipping_bound=0.1).init(0)
    random = np.random.default_rng(1)
    norms, seen = (random.lognormal(0.0, 0.5, 100), random.lognormal(-3.0, 0.2, 100)), []
    for round_ in range(120):
        bounds = mechanism.group_bounds(state)
        clipped = tuple(int((mine > bound).sum()) for mine, bound in zip(norms, bounds))
        _, state = mechanism.add_noise(torch.zeros(9500), CohortStats(100, 0, 0, (), clipped), round_, state)
        seen.append(bounds)
    found = np.median(np.array(seen[60:]), axis=0)
    assert found == pytest.approx([np.median(mine) for mine in norms], rel=0.15)


def test_counts_that_leave_nothing_are_refused_and_so_are_groups_nobody_named() -> None:
    with pytest.raises(
        PrivacyError, match=r"adaptive_clipping_noise_std: 0\.5 on the count leaves no privacy for the sum"
    ):
        made(adaptive_clipping_noise_std=0.5)
    with pytest.raises(PrivacyError, match="clipping_groups: the groups of this network's parameters are not known"):
        made(groups=None)
