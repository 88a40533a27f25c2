from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.contract import binding_of
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger.verification import noise_problems, round_problems
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.noise import noise_key, scalar_normal
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 100, 1000)
SEED = 5 << 90


def made(**changes: object) -> Mechanism:
    options = {"mechanism": "gaussian_moments_accountant", "delta": 1e-5, "adaptive_clipping": True, **changes}
    return make_mechanism(PrivacyOptions(**options), SAMPLER, 50, SEED)  # type: ignore[arg-type]


def test_noise_is_split_between_sum_and_count() -> None:
    facts = made(clipping_bound=0.5).description
    plain = made(adaptive_clipping=False, clipping_bound=0.5).description
    assert facts["noise_multiplier"] == plain["noise_multiplier"]
    assert facts["epsilon"] == plain["epsilon"] == pytest.approx(2.0, rel=1e-4)
    assert facts["count_noise_std"] == 5.0
    # One client moves (sum / C, count) by at most (1, 1/2): in units of the noise, by the budget's 1 / z and no more.
    sum_multiplier = facts["noise_std"] / 0.5
    moved = math.hypot(1 / sum_multiplier, 0.5 / facts["count_noise_std"])
    assert moved == pytest.approx(1 / facts["noise_multiplier"], rel=1e-12)
    assert sum_multiplier > plain["noise_multiplier"]


def test_one_step_by_hand() -> None:
    mechanism = made(clipping_bound=0.5, adaptive_clipping_quantile=0.3, adaptive_clipping_learning_rate=0.4)
    state = mechanism.init(10)
    assert mechanism.clipping_bound(state) == 0.5
    # 110 clients, 20 clipped and 10 rejected: 80 whole. Those that count as zero are as if clipped.
    _, after = mechanism.add_noise(torch.zeros(10), CohortStats(110, 20, 10), 4, state)
    noisy = 80 - 55 + 5.0 * scalar_normal(noise_key(SEED, 4, binding_of(after)))
    # To a multiple of what depends on the noise alone: no digit of the bound tells more of the count.
    share = round(noisy * 2**18) / 2**18 / 100 + 0.5
    assert mechanism.clipping_bound(after) == pytest.approx(0.5 * math.exp(-0.4 * (share - 0.3)), rel=1e-12)
    assert mechanism.clipping_bound(state) == 0.5
    assert mechanism.noise_std(after, 1) / mechanism.clipping_bound(after) == pytest.approx(
        mechanism.noise_std(state, 0) / 0.5
    )


def test_the_bound_finds_the_quantile() -> None:
    mechanism = made(clipping_bound=0.01, adaptive_clipping_quantile=0.5)
    norms = np.random.default_rng(1).lognormal(0.0, 0.5, 100)
    state = mechanism.init(10)
    bounds = []
    for round_ in range(200):
        bound = mechanism.clipping_bound(state)
        clipped = int((norms > bound).sum())
        _, state = mechanism.add_noise(torch.zeros(10), CohortStats(100, clipped, 0), round_, state)
        bounds.append(bound)
    assert np.median(bounds[100:]) == pytest.approx(np.median(norms), rel=0.1)


def test_simulated_cohorts_scale_both_noises() -> None:
    facts = made(noise_cohort_size=400).description
    assert facts["count_noise_std"] == 20.0
    assert facts["run_count_noise_std"] == 5.0
    run = made(noise_cohort_size=400).run_event(50)
    assert run == PrivacyEvent("gaussian", facts["noise_multiplier"] / 4, 50, "poisson", 0.1)
    moved = math.hypot(0.1 / facts["noise_std"], 0.5 / facts["run_count_noise_std"])
    assert moved == pytest.approx(1 / run.noise_multiplier, rel=1e-12)


def test_its_ledger_verifies_with_a_moving_bound(tmp_path: Path) -> None:
    mechanism = made(noise_cohort_size=400)
    book, state = ledger.create(tmp_path, mechanism, SEED, "digest"), mechanism.init(10)
    for round_ in range(50):
        before, cohort = state, CohortStats(95 + round_ % 10, 70, 0)
        _, state = mechanism.add_noise(torch.zeros(10), cohort, round_, state)
        book = ledger.append(book, round_, cohort, before, state)
    lines = [json.loads(line) for line in book.path.read_text().splitlines()]
    assert lines[1]["clipping_bound"] == 0.1 < lines[-1]["clipping_bound"]
    assert round_problems(mechanism, book.terms, lines[1:], 1000, None) == []
    assert noise_problems(SEED, lines[1:]) == []
    lines[7]["clipping_bound"] *= 0.5
    (problem,) = round_problems(mechanism, book.terms, lines[1:], 1000, None)[:1]
    assert problem.startswith("line 8 has sensitivity ")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"adaptive_clipping_quantile": 1.5}, ConfigError, r"adaptive_clipping_quantile: 1\.5"),
        ({"adaptive_clipping_learning_rate": 0.0}, ConfigError, r"adaptive_clipping_learning_rate: 0\.0"),
        ({"adaptive_clipping_noise_std": 0.5}, PrivacyError, r"adaptive_clipping_noise_std: 0\.5 .* must be above"),
        (
            {"mechanism": "banded_matrix_factorization"},
            ConfigError,
            "adaptive_clipping: banded_matrix_factorization has none",
        ),
        ({"mechanism": "laplace"}, ConfigError, "adaptive_clipping: laplace has none"),
    ],
)
def test_impossible_options_are_named(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(**changes)


def test_fixed_cohorts_are_refused() -> None:
    options = PrivacyOptions("gaussian_moments_accountant", delta=1e-5, adaptive_clipping=True)
    with pytest.raises(PrivacyError, match="its noise is split for poisson and rotating cohorts"):
        make_mechanism(options, SamplerDescription("fixed", 100, 1000), 5, SEED)
