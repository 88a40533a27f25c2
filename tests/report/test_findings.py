"""What the first lines of a report say, on both sides of the rule by which two rows are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from fedflair.report.data import Group, Run
from fedflair.report.findings import RULE, compare, findings, rule_of, verdict

GAUSSIAN = "gaussian_moments_accountant"
SIMULATED = {
    "mechanism": GAUSSIAN, "epsilon": 2.0, "delta": 5e-8, "simulated": True, "run_epsilon": 1e5, "users": 320,
    "population": 10_000_000, "noise_std": 0.02, "clipping_bound": 1.0, "cohort_size": 20, "order": 2.0,
}  # fmt: skip
HONEST = SIMULATED | {"delta": 1e-3, "simulated": False, "run_epsilon": 2.0, "population": 320, "noise_std": 2.0}


def run(score: float, jitter: float = 0.0, privacy: Any = None, store: str | None = "s", **options: Any) -> Run:
    """A finished run; without the groups of users its scores go up and down by ``jitter``."""
    mechanism = {} if privacy is None else {"central_privacy_mechanism": GAUSSIAN}
    all_options = {"dataset": "flair", "seed": 0, "cohort_size": 20, **mechanism, **options}
    summary = {"test": {"macro_ap": score, "mean_prevalence": 0.17}, "seconds": 60.0, "setting": "flair"}
    left_out = {"macro_ap": [score + jitter, score - jitter] * 10} if jitter else {}
    return Run("", summary, [], all_options, {}, {}, privacy, None, (), left_out, {}, 400 * 400, store)


def group(name: str, *runs: Run) -> Group:
    return Group(name, runs)


def test_one_seed_each_within_and_beyond_what_users_of_test_change() -> None:
    # The difference goes up and down by 0.01: its standard error is sqrt(19 / 20 * 20 * 0.01^2) = 0.0436.
    natural = group("natural", run(0.60, 0.01))
    within, beyond = group("within", run(0.687, 0.0)), group("beyond", run(0.70, 0.02))
    within = group("within", run(0.687, 0.02))
    found = compare(natural, within, "macro_ap")
    assert found is not None and found.error == pytest.approx(0.0436, abs=1e-4)
    assert not found.told_apart
    assert verdict(found) == "0.087 less, within ± 0.087, one seed each: no difference is seen"
    found = compare(natural, beyond, "macro_ap")
    assert found is not None and found.told_apart
    assert verdict(found) == "0.100 less, beyond ± 0.087, one seed each; another seed may differ"


def test_what_is_hard_about_a_user_cancels() -> None:
    """Both rows are worse without the same users, so their difference is known well."""
    found = compare(group("a", run(0.6, 0.05)), group("b", run(0.61, 0.05)), "macro_ap")
    assert found is not None and found.error == pytest.approx(0, abs=1e-9)
    assert found.told_apart


def test_seeds_count_where_both_rows_have_several() -> None:
    # Of means of two: sqrt((0.0002 + 0.0002) / 2) = 0.01414, and users add nothing.
    few = group("few", run(0.60, 0.001), run(0.62, 0.001, seed=1))
    near, far = ([run(x, 0.001), run(x + 0.02, 0.001, seed=1)] for x in (0.627, 0.63))
    found = compare(few, group("near", *near), "macro_ap")
    assert found is not None and found.error == pytest.approx(0.01414, abs=1e-5)
    assert verdict(found) == "0.027 less, within ± 0.028, 2 seeds or more each: no difference is seen"
    found = compare(few, group("far", *far), "macro_ap")
    assert found is not None
    assert verdict(found) == "0.030 less, beyond ± 0.028, 2 seeds or more each"
    # One seed against several: of the one nothing is known of seeds.
    found = compare(few, group("one", run(0.7, 0.001)), "macro_ap")
    assert found is not None and found.num_seeds == 1


def test_what_runs_of_an_earlier_version_kept_bears_nothing() -> None:
    found = compare(group("a", run(0.2)), group("b", run(0.9)), "macro_ap")
    assert found is not None and not found.told_apart
    assert verdict(found) == "0.700 less; whether that is more than chance cannot be told from what these runs kept"
    for store in ("another", None):
        assert compare(group("a", run(0.2)), group("b", run(0.9, store=store)), "macro_ap") is None


def test_the_demo_s_five_rows_in_words() -> None:
    rows = [
        group("flair_iid", run(0.70, 0.01, dataset="flair_iid", mean_datapoints_per_user=8)),
        group("flair", run(0.68, 0.02, mean_datapoints_per_user=8)),
        group("flair_dp", run(0.66, 0.03, SIMULATED, mean_datapoints_per_user=8)),
        group("own", run(0.22, 0.01, HONEST, mean_datapoints_per_user=8, learning_rate=0.3)),
    ]
    found = findings(rows)
    assert found.headline == (
        "With a promise to the users trained on macro AP is 0.22, without privacy 0.68; between natural and IID users "
        "no difference is seen; what the noise of a simulated deployment costs cannot be seen"
    )
    users, simulated, own = found.sentences
    assert users == (
        "Natural users (flair) against IID users (flair_iid): macro AP on test 0.680 against 0.700, 0.020 less, within "
        "± 0.087, one seed each: no difference is seen."
    )
    # sqrt(160,000) * 0.02 / 20 and * 2 / 20.
    assert simulated.startswith(
        "flair_dp: Noise 0.4 times as long as the clipping bound for epsilon 2 in a simulated deployment of 10,000,000 "
        "users; for the 320 users trained on it is 1e+05, which protects nobody. Macro AP on test 0.660 against 0.680 "
        "without privacy (flair), 0.020 less, within ± "
    )
    assert own.startswith(
        "own: Noise 40 times as long as the clipping bound for epsilon 2 for the 320 users trained on."
    )
    assert "0.460 less, beyond ± 0.087, one seed each; another seed may differ. They also differ in learning" in own
    assert own.endswith("Knowing nothing gives 0.170.")
    assert rule_of(found) == [RULE]


def test_a_cost_that_can_be_told_is_told() -> None:
    rows = [group("flair", run(0.68, 0.001)), group("flair_dp", run(0.5, 0.001, SIMULATED))]
    assert findings(rows).headline == (
        "With the noise of a simulated deployment macro AP is 0.50, without privacy 0.68"
    )
    # Of several rows of a kind the one whose cost can be told.
    rows.insert(1, group("less", run(0.679, 0.002, SIMULATED)))
    assert findings(rows).headline == (
        "With the noise of a simulated deployment (flair_dp) macro AP is 0.50, without privacy 0.68"
    )
    rows = [group("iid", run(0.6, 0.001, dataset="flair_iid")), group("natural", run(0.7, 0.002))]
    assert findings(rows).headline == "Natural users are 0.10 macro AP above IID ones"


def test_other_rows_are_ranked_and_those_that_cannot_be_told_from_the_best_are_counted() -> None:
    rows = [
        group(n, run(x, j, learning_rate=x)) for n, x, j in (("a", 0.5, 0.001), ("b", 0.7, 0.002), ("c", 0.69, 0.009))
    ]
    found = findings(rows)
    assert found.headline == "b has the highest macro AP on test, 0.700; 1 of the 2 others cannot be told from it"
    assert found.sentences == [
        "c against b: 0.010 less, within ± 0.061, one seed each: no difference is seen.",
        "a against b: 0.200 less, beyond ± 0.009, one seed each; another seed may differ.",
    ]
    (alone,) = rows[:1]
    assert findings([alone]).headline == "a: macro AP 0.500 on test"
    # Nothing is said of a difference between scores of different photographs.
    apart = findings([alone, group("d", run(0.9, store="another"))])
    assert apart.sentences == [
        "Some are not compared, as they are not known to have been scored on the same photographs."
    ]
    assert rule_of(apart) == []
