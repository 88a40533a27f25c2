"""The audit finds planted faults of every kind in every mechanism, and leaves honest paths alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedflair.audit.measure import AuditResult, Sizes, audit_central, audit_local
from fedflair.errors import ConfigError
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.contract import LocalMechanism, PrivacyOptions
from fedflair.privacy.path import PrivacyPath
from tests.audit.faults import (
    FAULTS,
    FAULTS_OF,
    KINDS,
    LOCAL_FAULTS,
    LOCAL_KINDS,
    audited_local,
    count_noise_times,
    less_noise_stated_so,
    noise_times,
    twice_the_epsilon,
)

SMALL = Sizes(num_rounds=8, num_canaries=300)


def small(kind: str, fault: str | None = None, seed: int = 1) -> AuditResult:
    faults = FAULTS | FAULTS_OF.get(kind, {})
    return KINDS[kind].audited(seed, SMALL, faults[fault] if fault else lambda path: path)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_paths_are_not_flagged(kind: str) -> None:
    for seed in range(1 if kind == "fixed" else 3):
        result = small(kind, seed=seed)
        assert result.findings == (), (seed, result)
        assert result.accounted is not None
        assert result.lower_bound is not None
        assert result.lower_bound <= result.accounted


@pytest.mark.parametrize("kind", LOCAL_KINDS)
def test_honest_local_mechanisms_are_not_flagged(kind: str) -> None:
    result = audited_local(kind, 1, Sizes(num_rounds=3, num_canaries=300))
    assert result.findings == ()
    low, high = result.estimate_range
    assert result.accounted is not None and low is not None and high is not None
    assert low < result.accounted < high


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("noise halved", r"the noise's standard deviation is 0\.(49|50)\d+ of what is accounted"),
        ("noise x 0.9", r"the noise's standard deviation is 0\.(89|90)\d+ of what is accounted"),
        ("noise halved, and stated so", r"round \d states noise of standard deviation \S+, accounted as"),
        ("noise on half of the coordinates", r"the noise's standard deviation is 0\.7\d+ of what is accounted"),
        ("noise in the first rounds only", r"the noise's standard deviation is 0\.7\d+ of what is accounted"),
        ("one noise for many coordinates", r"noises of coordinates \d+ apart have correlation"),
        ("noise repeated after 5 rounds", r"the noises of rounds . and . have correlation 1\.000"),
        ("no clipping", "an update that is dense is clipped to"),
        ("clipping bound doubled", r"canaries contribute more than the clipping bound \(2 times\)"),
        ("a weight of 2", r"canaries contribute more than the clipping bound \(2 times\)"),
        ("clipped entry by entry", "an update that is dense is clipped to"),
        ("sum added twice", r"canaries contribute more than the clipping bound \(.* standard deviations more\)"),
        ("twice the sampling rate", "cohorts hold .* clients in all, accounted as"),
        ("drawn with replacement", "holds a client twice"),
        ("the same cohort always", "more clients in common than independent ones"),
    ],
)
def test_planted_faults_are_named(fault: str, message: str) -> None:
    findings = small("gaussian_moments_accountant", fault).findings
    assert any(re.search(message, finding) for finding in findings), findings


# The others have the sampler, or the check, of gaussian_moments_accountant.
@pytest.mark.parametrize("fault", ["noise halved", "noise x 0.9", "a weight of 2"])
@pytest.mark.parametrize("kind", ["laplace", "adaptive", "banded", "blt", "simulated"])
def test_faults_of_every_mechanism_are_found(kind: str, fault: str) -> None:
    assert small(kind, fault).findings


@pytest.mark.parametrize(
    ("kind", "fault", "message"),
    [
        ("banded", "min_separation violated", "is in the cohorts of rounds"),
        ("banded", "correlation lost", "have correlation"),
        ("banded", "columns of norm 2", r"correlated noise lets a client count 2\.0000 times in 4 rounds"),
        ("apart", "min_separation violated", "is in the cohorts of rounds"),
        ("apart", "noise halved", r"the noise's standard deviation is 0\.(49|50)"),
        ("apart", "columns of norm 2", "lets a contribution count more in a round than it is accounted for"),
        ("blt", "min_separation violated", "is in the cohorts of rounds"),
        ("blt", "correlation lost", "have correlation"),
        ("rotating", "min_separation violated", "is in the cohorts of rounds"),
        ("rotating", "the same cohort always", r"a client counts 2\.8284 times in this run, accounted as 1\.4142"),
        ("adaptive", "no noise on the count", r"the count of whole updates has a standard deviation of 0\.0000"),
        ("adaptive", "count's noise halved", r"the count of whole updates has a standard deviation of 0\.[45]"),
        ("grouped", "no noise on a group", r"the noise's standard deviation is 0\.8"),
        (
            "grouped",
            "a group's bound doubled",
            r"an update that is dense is clipped to 1\.99\d+ times the clipping bound",
        ),
        ("metrics", "noise on metrics halved", r"metrics: the noise's standard deviation is 0\.[45]"),
        ("fixed", "noise x 0.9", r"the noise's standard deviation is 0\.(89|90)"),
        ("fixed", "twice the sampling rate", r"a cohort holds \d+ clients, accounted as 150"),
    ],
)
def test_faults_of_one_mechanism_are_named(kind: str, fault: str, message: str) -> None:
    findings = small(kind, fault).findings
    assert any(re.search(message, finding) for finding in findings), findings


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("noise halved", "the noise's standard deviation is 0."),
        ("noise x 0.9", "the noise's standard deviation is 0.9"),
        ("the same noise for all", "noises of coordinates 32 apart have correlation"),
        ("clipping bound doubled", "updates are longer than the clipping bound"),
    ],
)
@pytest.mark.parametrize("kind", LOCAL_KINDS)
def test_faults_of_local_mechanisms_are_named(kind: str, fault: str, message: str) -> None:
    findings = audited_local(kind, 1, Sizes(num_rounds=3, num_canaries=300), fault).findings
    assert set(LOCAL_FAULTS) >= {fault}
    assert any(message in finding for finding in findings), findings


def test_what_a_mechanism_says_of_itself_is_not_believed() -> None:
    """Less noise, and less of it stated: what there has to be follows from the event that was accounted."""
    for kind in ("gaussian_moments_accountant", "banded", "adaptive"):
        findings = KINDS[kind].audited(3, SMALL, less_noise_stated_so).findings
        assert any("states noise of standard deviation" in finding for finding in findings)
        assert any("of what is accounted" in finding for finding in findings)


@pytest.mark.parametrize("kind", ["gaussian_moments_accountant", "banded"])
def test_guesses_alone_refute_twice_the_epsilon(kind: str) -> None:
    sizes = Sizes()
    result = KINDS[kind].audited(1, sizes, twice_the_epsilon(sizes))
    assert any("coins are guessed right too often" in finding for finding in result.findings)
    assert any("contributions stand out of the noise" in finding for finding in result.findings)
    assert result.conditional_lower_bound is not None
    assert 2.0 < result.conditional_lower_bound < 4.0


def test_the_bound_alone_refutes_a_path_without_noise() -> None:
    result = KINDS["gaussian_moments_accountant"].audited(1, SMALL, noise_times(0.01))
    assert result.accounted is not None and result.lower_bound is not None
    assert result.lower_bound > result.accounted
    assert any(finding.startswith("epsilon is at least") for finding in result.findings)


def test_the_estimate_is_near_the_accounted_epsilon_and_says_how_near() -> None:
    # One round with everybody in it: what an observer sees of a canary is the worst case itself.
    options = PrivacyOptions("gaussian", epsilon=4.0, delta=1e-4)
    result = audit_central(options, Sizes(num_rounds=1, sampling_rate=1.0, num_canaries=3000), 1)
    assert result.accounted == pytest.approx(4.0)
    assert result.estimate == pytest.approx(4.0, rel=0.15)
    low, high = result.estimate_range
    assert low is not None and high is not None
    assert low < 4.0 < high < 5.0
    assert result.conditional_lower_bound is not None and result.lower_bound is not None
    assert 0.5 < result.lower_bound < result.conditional_lower_bound < 4.0


def test_a_path_that_cannot_be_seen_gives_a_wide_range_and_no_finding() -> None:
    result = audit_central(PrivacyOptions("gaussian_moments_accountant", epsilon=0.1), SMALL, 2)
    assert result.findings == ()
    low, high = result.estimate_range
    assert low == 0.0
    assert high is not None and high > 0.3


def test_a_count_with_all_its_noise_is_sound_whatever_the_bound_does() -> None:
    assert KINDS["adaptive"].audited(5, SMALL, count_noise_times(1.0)).findings == ()


def test_sizes_that_show_nothing_are_refused() -> None:
    for sizes in ({"num_canaries": 10}, {"num_rounds": 0}, {"sampling_rate": 0.0}, {"sampling_rate": math.inf}):
        with pytest.raises(ConfigError, match=r"num_canaries|rounds|sampling_rate"):
            Sizes(**sizes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="central_privacy_mechanism: norm_clipping_only promises no epsilon"):
        audit_central(PrivacyOptions("norm_clipping_only"), SMALL, 1)


def _event_with(**changes: object) -> Callable[[PrivacyPath], PrivacyPath]:
    """Accounted by another event than the path's own."""

    def tamper(path: PrivacyPath) -> PrivacyPath:
        def run_event(num_rounds: int) -> PrivacyEvent:
            event = path.mechanism.run_event(num_rounds)
            assert event is not None
            return replace(event, **changes)  # type: ignore[arg-type]

        return replace(path, mechanism=replace(path.mechanism, run_event=run_event))

    return tamper


def _described(**changes: object) -> Callable[[PrivacyPath], PrivacyPath]:
    return lambda path: replace(
        path, mechanism=replace(path.mechanism, description={**path.mechanism.description, **changes})
    )


@pytest.mark.parametrize(
    ("kind", "tamper", "message"),
    [
        ("gaussian_moments_accountant", _described(run_epsilon=1.0), "epsilon is stated as 1, and its event costs 2"),
        ("gaussian_moments_accountant", _described(run_epsilon=None), "epsilon is stated as infinite"),
        (
            "gaussian_moments_accountant",
            _event_with(sampling_rate=0.25),
            "poisson cohorts of rate 0.5 are accounted as poisson, 0.25",
        ),
        ("gaussian_moments_accountant", _event_with(count=4), "8 releases are accounted as 4"),
        ("adaptive", _described(run_count_noise_std=0.5), "noise of 0.5 on the count leaves no privacy for the sum"),
        ("banded", _described(min_separation=1), "8 releases are accounted as 2"),
    ],
)
def test_terms_that_do_not_follow_from_the_event_are_named(
    kind: str, tamper: Callable[[PrivacyPath], PrivacyPath], message: str
) -> None:
    findings = KINDS[kind].audited(1, SMALL, tamper).findings
    assert any(message in finding for finding in findings), findings


def test_a_local_multiplier_that_does_not_follow_from_the_budget_is_named() -> None:
    def tamper(mechanism: LocalMechanism) -> LocalMechanism:
        return replace(mechanism, description={**mechanism.description, "noise_multiplier": 1.0})

    options = LOCAL_KINDS["local gaussian"]
    findings = audit_local(options, Sizes(num_rounds=2, num_canaries=100), 1, tamper=tamper).findings
    assert len(findings) == 1
    assert findings[0].startswith("a local noise multiplier of 1 is stated, and its budget asks for 3.98")
