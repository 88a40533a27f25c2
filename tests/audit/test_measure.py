from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedflair.audit.measure import AuditResult, audit_options
from fedflair.privacy.contract import MechanismState
from fedflair.privacy.mechanisms import ClipResult, CohortStats, PrivacyOptions
from fedflair.privacy.path import PrivacyPath as Path
from fedflair.sampling import CohortSampler, poisson_sampler, stream

GAUSSIAN = PrivacyOptions("gaussian_moments_accountant")


def small(seed: int, options: PrivacyOptions = GAUSSIAN, tamper: Callable[[Path], Path] = lambda p: p) -> AuditResult:
    return audit_options(options, 8, 0.5, 300, seed, tamper)


def test_honest_paths_are_flagged_in_at_most_5_percent() -> None:
    results = [small(seed) for seed in range(40)]
    flagged = [result.findings for result in results if result.findings]
    assert len(flagged) <= 2, flagged
    assert all(result.accounted is not None and result.lower_bound <= result.accounted for result in results)


@pytest.mark.parametrize(
    "options",
    [
        PrivacyOptions("gaussian", epsilon=1.0),
        PrivacyOptions("laplace", epsilon=1.0),
        PrivacyOptions("banded_matrix_factorization", min_separation=2),
        PrivacyOptions("gaussian_moments_accountant", adaptive_clipping=True, adaptive_clipping_noise_std=20.0),
    ],
)
def test_every_mechanism_passes_when_honest(options: PrivacyOptions) -> None:
    assert small(1, options).findings == ()


def _skipped_clip(path: Path) -> Path:
    return replace(path, mechanism=replace(path.mechanism, clip=lambda u, bound: ClipResult(1.0, False, False)))


def _half_the_noise(path: Path) -> Path:
    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        noise, state = path.mechanism.add_noise(torch.zeros_like(total), cohort, round_, state)
        return total + 0.5 * noise, state

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def _replayed_noise(path: Path) -> Path:
    """As after a resume from round 5 with a generator that the checkpoint forgot."""

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        noise, state = path.mechanism.add_noise(torch.zeros_like(total), cohort, round_ % 5, state)
        return total + noise, state

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def _with_replacement(path: Path) -> Path:
    population = [f"canary-{i}" for i in range(300)]

    def sample(round_: int) -> list[str]:
        drawn = stream(1, "cohort", round_).integers(0, 300, path.sampler.description.cohort_size)
        return [population[i] for i in drawn]

    return replace(path, sampler=CohortSampler(sample, path.sampler.description))


def _clipped_to_twice_the_bound(path: Path) -> Path:
    return replace(path, mechanism=replace(path.mechanism, clip=lambda u, b: path.mechanism.clip(u, 2 * b)))


def _larger_cohorts(path: Path) -> Path:
    def sample(round_: int) -> list[str]:
        return list({*path.sampler.sample(round_), *path.sampler.sample(1000 + round_)})

    return replace(path, sampler=CohortSampler(sample, path.sampler.description))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_skipped_clip, "canaries contribute more than the clipping bound"),
        (_clipped_to_twice_the_bound, "canaries contribute more than the clipping bound"),
        (_half_the_noise, r"the noise's standard deviation is 0\.\d+ of what is stated"),
        (_replayed_noise, r"the noises of rounds . and . have correlation 1\.000"),
        (_with_replacement, "holds a client twice"),
        (_larger_cohorts, "cohorts hold .* clients in all, accounted as"),
    ],
)
def test_planted_faults_are_flagged(tamper: Callable[[Path], Path], message: str) -> None:
    for seed in range(4):
        findings = small(seed, tamper=tamper).findings
        assert any(re.search(message, finding) for finding in findings), findings


@pytest.mark.parametrize("tamper", [_skipped_clip, _half_the_noise, _clipped_to_twice_the_bound])
def test_faults_of_banded_matrix_factorization_are_flagged(tamper: Callable[[Path], Path]) -> None:
    assert small(2, PrivacyOptions("banded_matrix_factorization", min_separation=2), tamper).findings


def test_a_separation_that_is_not_enforced_is_flagged() -> None:
    def plain_poisson(path: Path) -> Path:
        ids = [f"canary-{i}" for i in range(300)]
        return replace(path, sampler=poisson_sampler(ids, path.sampler.description.cohort_size, 1))

    findings = small(2, PrivacyOptions("banded_matrix_factorization", min_separation=2), plain_poisson).findings
    assert any("is in the cohorts of rounds" in finding for finding in findings)


def test_the_bound_alone_refutes_a_path_without_clipping() -> None:
    result = small(1, tamper=_skipped_clip)
    assert result.accounted is not None
    assert result.lower_bound > result.accounted
    assert any("epsilon is at least" in finding for finding in result.findings)


def test_the_estimate_is_near_the_accounted_epsilon_where_nothing_is_hidden() -> None:
    # One round with everybody in it: what an observer sees of a canary is the worst case itself.
    result = audit_options(PrivacyOptions("gaussian", epsilon=4.0, delta=1e-4), 1, 1.0, 3000, 1)
    assert result.accounted == pytest.approx(4.0)
    assert result.estimate == pytest.approx(4.0, rel=0.2)
    assert 0.5 < result.lower_bound < 4.0
