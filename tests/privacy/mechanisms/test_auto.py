from __future__ import annotations

import pytest

from fedflair.errors import ConfigError
from fedflair.privacy.contract import PrivacyOptions
from fedflair.privacy.mechanisms import make_mechanism
from fedflair.privacy.mechanisms.auto import CHOSEN_AMONG, Candidate, candidates, choice_lines, chosen
from fedflair.privacy.path import make_path
from fedflair.sampling import SamplerDescription, SamplingKind

ROUNDS, SEED = 60, 3 << 90
CLIENTS = [f"user-{k}" for k in range(400)]


def samplers(cohort_size: int, *kinds: SamplingKind) -> list[SamplerDescription]:
    return [SamplerDescription(kind, cohort_size, 400) for kind in kinds or CHOSEN_AMONG]


@pytest.fixture(scope="module")
def table() -> tuple[Candidate, ...]:
    return candidates(PrivacyOptions("auto", delta=1e-4), samplers(20), ROUNDS)


def test_every_row_is_what_its_mechanism_has_at_the_budget(table: tuple[Candidate, ...]) -> None:
    assert len(table) >= 7
    assert {one.sampling for one in table} == set(CHOSEN_AMONG)
    for one in table:
        options = PrivacyOptions(
            one.mechanism,
            delta=1e-4,
            min_separation=one.min_separation,
            num_buffers=one.num_buffers or None,
        )
        (sampler,) = samplers(20, one.sampling)
        facts = make_mechanism(options, sampler, ROUNDS, SEED).description
        close = 1e-2 if one.sampling == "b_min_separation" else 1e-4
        assert facts["epsilon"] == pytest.approx(2.0, rel=close) and facts["epsilon"] <= 2.0
        assert facts["noise_multiplier"] == pytest.approx(one.noise_multiplier, rel=1e-3)
        assert facts["min_separation"] == one.min_separation
        if one.num_buffers:
            assert facts["prefix_error"] == pytest.approx(one.error, rel=1e-3)
    assert [one.error for one in table] == sorted(one.error for one in table)


def test_the_choice_is_the_least_error_and_says_what_it_was_chosen_from(table: tuple[Candidate, ...]) -> None:
    path = make_path(
        PrivacyOptions("auto", delta=1e-4), CLIENTS, sampling="auto", cohort_size=20, num_rounds=ROUNDS, seed=1,
        noise_seed=SEED,
    )  # fmt: skip
    best, facts = chosen(table), path.mechanism.description
    assert (facts["mechanism"], facts["sampling"]) == (best.mechanism, best.sampling)
    assert path.sampler.description.kind == best.sampling
    assert best.error <= 1.02 * table[0].error
    assert facts["epsilon"] == pytest.approx(2.0, rel=1e-2)
    assert list(facts["chosen_from"]) == [one.name for one in table]
    head, *lines = choice_lines(facts["chosen_from"])
    assert head.split()[-1] == "mechanism" and len(lines) == len(table)
    assert lines[0].endswith(table[0].name)


def test_few_of_many_want_secrecy_and_all_of_the_few_want_correlation() -> None:
    options = PrivacyOptions("auto", delta=1e-6, population=100_000, noise_cohort_size=20, accountant="rdp")
    few = chosen(candidates(options, samplers(20), 10))
    assert few.sampling in ("poisson", "b_min_separation")
    everybody = chosen(candidates(PrivacyOptions("auto", delta=1e-4, accountant="rdp"), samplers(200), ROUNDS))
    assert everybody.num_buffers > 0


def test_a_vector_has_to_be_worth_something() -> None:
    def row(num_buffers: int, error: float) -> Candidate:
        return Candidate("m", "rotating", 1, num_buffers, 1.0, error, error, 1.0)

    assert chosen([row(64, 1.0), row(2, 1.015), row(1, 1.03)]).num_buffers == 2


def test_what_has_another_kind_of_promise_is_not_chosen_from() -> None:
    options = PrivacyOptions("auto", delta=1e-4)
    (fixed,), (rotating,) = samplers(20, "fixed"), samplers(20, "rotating")
    with pytest.raises(ConfigError, match="auto chooses among poisson, b_min_separation and rotating cohorts"):
        make_mechanism(options, fixed, ROUNDS, SEED)
    only = make_mechanism(options, rotating, ROUNDS, SEED)
    assert {name.split(", ")[1] for name in only.description["chosen_from"]} == {"rotating"}
    assert only.description["epsilon"] == pytest.approx(2.0, rel=1e-4)


def test_metrics_with_noise_are_paid_by_whatever_is_chosen() -> None:
    path = make_path(
        PrivacyOptions("auto", delta=1e-4, private_metrics=0.1), CLIENTS, sampling="auto", cohort_size=20,
        num_rounds=ROUNDS, seed=1, noise_seed=SEED,
    )  # fmt: skip
    assert path.mechanism.measure is not None
    assert path.mechanism.description["private_metrics"]["share"] == 0.1
    assert path.mechanism.description["chosen_from"]
