from __future__ import annotations

import math

import pytest
import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.persons import person_epsilon
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.contract import PersonImages
from fedflair.privacy.mechanisms import CohortStats, PrivacyOptions, make_mechanism
from fedflair.sampling import SamplerDescription

FLAIR = SamplerDescription("poisson", 200, 41131)
SMALL = SamplerDescription("poisson", 20, 400)
SEED = 99 << 100


def small(**changes: object) -> PrivacyOptions:
    return PrivacyOptions(**{"mechanism": "gaussian_moments_accountant", "delta": 1e-4, **changes})  # type: ignore[arg-type]


def test_published_noise_on_the_sum() -> None:
    options = small(delta=1e-5, population=10_000_000, noise_cohort_size=5000, allow_large_delta=True)
    mechanism = make_mechanism(options, FLAIR, 5000, SEED)
    assert mechanism.description["noise_multiplier"] == pytest.approx(0.545453, rel=1e-4)
    assert mechanism.noise_std({}, 0) == pytest.approx(0.00218182, rel=1e-4)
    assert mechanism.description["noise_std"] == mechanism.noise_std({}, 0)


def test_a_simulated_cohort_has_two_epsilons() -> None:
    mechanism = make_mechanism(small(noise_cohort_size=100), SMALL, 50, SEED)
    facts = mechanism.description
    assert facts["simulated"] is True
    assert facts["epsilon"] == pytest.approx(2.0, rel=1e-4)
    multiplier = facts["noise_multiplier"]
    assert mechanism.event(50) == PrivacyEvent("gaussian", multiplier, 50, "poisson", 100 / 400)
    assert mechanism.run_event(50) == PrivacyEvent("gaussian", multiplier * 0.2, 50, "poisson", 20 / 400)
    assert facts["run_epsilon"] == epsilon(PrivacyEvent("gaussian", multiplier * 0.2, 50, "poisson", 0.05), 1e-4)
    assert facts["run_epsilon"] > 5
    assert "users: epsilon 2 " in facts["words"]
    assert "This run itself, with cohorts of 20 of 400 and the noise scaled down to them: epsilon " in facts["words"]
    assert f"epsilon {show(facts['run_epsilon'])} at the same delta" in facts["words"]


def test_a_larger_population_than_there_are_clients_is_simulated_too() -> None:
    facts = make_mechanism(small(population=4000), SMALL, 50, SEED).description
    assert facts["simulated"] is True
    assert facts["run_epsilon"] > facts["epsilon"]


def test_the_runs_own_cohort_has_one_epsilon() -> None:
    facts = make_mechanism(small(), SMALL, 50, SEED).description
    assert facts["simulated"] is False
    assert facts["epsilon"] == facts["run_epsilon"] == pytest.approx(2.0, rel=1e-4)
    assert facts["words"].startswith(
        "Privacy: epsilon 2 at delta 0.0001 for one user's contribution replaced by zero (zero_out), over 50 rounds"
    )
    assert "The number of users, 400 here, is public" in facts["words"]


def test_words_for_artificial_users_and_for_seeded_noise() -> None:
    words = make_mechanism(small(artificial_users=True, noise_from_seed=True), SMALL, 50, SEED).description["words"]
    assert "one artificial user's (a random group of images, not a person) contribution replaced by zero" in words
    assert words.startswith("The noise is drawn from the run's seed")
    assert "Epsilon of this run: infinite. With noise that nobody knows: epsilon 2 at" in words
    assert "protects nobody" in words


def test_fixed_cohorts_are_accounted_as_fixed() -> None:
    mechanism = make_mechanism(small(), SamplerDescription("fixed", 20, 400), 50, SEED)
    event = mechanism.event(50)
    assert event is not None
    assert (event.sampling, event.neighbouring, event.sampling_rate) == ("fixed", "replace_one", 0.05)
    assert mechanism.description["accountant"] == "pld"
    assert 1.999 < mechanism.description["epsilon"] <= 2.0
    poisson = make_mechanism(small(), SMALL, 50, SEED).description["noise_multiplier"]
    assert mechanism.description["noise_multiplier"] > 1.5 * poisson


def test_noise_is_added_once_and_belongs_to_the_round() -> None:
    mechanism = make_mechanism(small(), SMALL, 50, SEED)
    state = mechanism.init(200_000)
    cohort = CohortStats(20, 0, 0)
    total, _ = mechanism.add_noise(torch.full((200_000,), 3.0), cohort, 7, state)
    noise = total.double() - 3.0
    assert float(noise.std()) == pytest.approx(mechanism.noise_std(state, 0), rel=0.01)
    # A resumed run is another object over the same seed: same round, same noise; another round, other noise.
    again = make_mechanism(small(), SMALL, 50, SEED)
    replayed, _ = again.add_noise(torch.full((200_000,), 3.0), cohort, 7, state)
    assert torch.equal(total, replayed)
    later, _ = again.add_noise(torch.full((200_000,), 3.0), cohort, 8, state)
    assert abs(float(torch.corrcoef(torch.stack([noise, later.double() - 3.0]))[0, 1])) < 0.02


def test_an_empty_cohort_gets_noise_like_any_other() -> None:
    mechanism = make_mechanism(small(), SMALL, 50, SEED)
    empty, _ = mechanism.add_noise(torch.zeros(1000), CohortStats(0, 0, 0), 0, {})
    full, _ = mechanism.add_noise(torch.zeros(1000), CohortStats(40, 3, 1), 0, {})
    assert torch.equal(empty, full)
    assert float(empty.std()) > 0


def test_a_single_release_says_what_the_rounds_compose_to() -> None:
    mechanism = make_mechanism(small(mechanism="gaussian", epsilon=1.0, delta=1e-5), SMALL, 50, SEED)
    facts = mechanism.description
    assert facts["noise_multiplier"] == pytest.approx(3.73063, rel=1e-6)
    assert facts["epsilon_per_round"] == 1.0
    assert facts["epsilon"] == epsilon(PrivacyEvent("gaussian", facts["noise_multiplier"], 50, "poisson", 0.05), 1e-5)
    everybody = SamplerDescription("poisson", 400, 400)
    facts = make_mechanism(small(mechanism="gaussian", epsilon=1.0, delta=1e-5), everybody, 50, SEED).description
    assert facts["epsilon"] > 8
    assert "one release with epsilon 1, used in every round" in facts["words"]


def test_a_single_release_under_replacement_needs_twice_the_noise() -> None:
    fixed = SamplerDescription("fixed", 20, 400)
    facts = make_mechanism(small(mechanism="gaussian", epsilon=1.0, delta=1e-5), fixed, 1, SEED).description
    assert facts["noise_multiplier"] == pytest.approx(2 * 3.73063, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 1 / 400}, r"central_delta: 0\.0025 is not below 1/400 \(the population\)"),
        # Below 1 over the population that was named, and not below 1 over the users that there are.
        (
            {"delta": 1 / 300, "population": 20},
            r"central_delta: 0\.00333333 is not below 1/400 \(the run's own",
        ),
        ({"delta": 1e-4, "population": 100_000}, "central_delta"),
        ({"noise_cohort_size": 401}, "noise_cohort_size: 401 is more than the population of 400"),
        ({"noise_cohort_size": 19}, "noise_cohort_size: 19 is less than cohort_size 20"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PrivacyError, match=message) as caught:
        make_mechanism(small(**changes), SMALL, 50, SEED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "central_epsilon"),
        ({"epsilon": math.inf}, "central_epsilon"),
        ({"delta": 0.0}, "central_delta"),
        ({"clipping_bound": -1.0}, "central_privacy_clipping_bound"),
        ({"order": 1.0}, "central_order: gaussian_moments_accountant protects norms of order 2, not 1"),
        ({"mechanism": "gaussian", "adaptive_clipping": True}, "adaptive_clipping: gaussian has none"),
        ({"mechanism": "gausian"}, "central_privacy_mechanism: 'gausian' is unknown; choose one of none, "),
    ],
)
def test_impossible_options_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mechanism(small(**changes), SMALL, 50, SEED)


def test_what_artificial_users_cost_a_person_is_told() -> None:
    images = PersonImages(2.4, 50)
    options = small(artificial_users=True, person_images=images, noise_cohort_size=20, population=401)
    facts = make_mechanism(options, SMALL, 50, SEED).description
    run = PrivacyEvent("gaussian", facts["run_noise_multiplier"], 50, "poisson", 0.05)
    assert facts["person"] == {
        "mean_images": 2.4,
        "most_images": 50,
        "accounted": True,
        "mean_epsilon": person_epsilon(run, 3, 1e-4),
        "most_epsilon": person_epsilon(run, 50, 1e-4),
    }
    mean, most = show(facts["person"]["mean_epsilon"]), show(facts["person"]["most_epsilon"])
    told = f"the mean of 2.4 images has epsilon {mean} in this run, somebody with the most, 50, {most}."
    assert told in facts["words"]
    fixed = make_mechanism(options, SamplerDescription("fixed", 20, 400), 50, SEED).description
    assert fixed["person"] == {"mean_images": 2.4, "most_images": 50, "accounted": False}
    assert "a person's own epsilon is larger, and not computed" in fixed["words"]
    assert make_mechanism(small(), SMALL, 50, SEED).description["person"] is None
