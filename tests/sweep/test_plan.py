"""What a sweep runs, and what it refuses before anything runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.errors import ConfigError
from fedflair.sweep.plan import SweepSpec, plan_sweep, read_sweep_file, sweep_spec


def test_settings_times_grid_times_seeds() -> None:
    spec = SweepSpec(
        args_config="demo",
        options={"cohort_size": 4},
        settings={"iid": {"dataset": "flair_iid"}, "natural": {}},
        grid={"learning_rate": [0.1, 0.5], "cohort_size": [10]},
        seeds=[3, 5],
        overrides={"central_num_iterations": 7},
    )
    trials = plan_sweep(spec)
    assert [trial.name for trial in trials] == [
        f"{setting}_learning_rate={rate}_cohort_size=10-seed{seed}"
        for seed in (3, 5)
        for setting in ("iid", "natural")
        for rate in (0.1, 0.5)
    ]
    first = trials[0]
    assert first.point == "iid learning_rate=0.1 cohort_size=10"
    assert (first.setting, first.seed, dict(first.varied)) == ("iid", 3, {"learning_rate": 0.1, "cohort_size": 10})
    config = first.config
    assert (config.data.dataset, config.server.learning_rate, config.cohort.cohort_size, config.run.seed) == (
        "flair_iid",
        0.1,
        10,
        3,
    )
    assert (config.algorithm.central_num_iterations, config.model.model) == (7, "small_cnn")
    assert len({(t.config.data.dataset, t.config.server.learning_rate, t.config.run.seed) for t in trials}) == 8


def test_random_samples_lie_in_their_ranges_and_stay_when_more_are_drawn() -> None:
    ranges: dict[str, Any] = {
        "learning_rate": {"log_uniform": [0.001, 10.0]},
        "cohort_size": {"int_uniform": [2, 4]},
        "central_lr_end": {"uniform": [0.0, 0.1]},
        "central_optimizer": {"choice": ["sgd", "adam"]},
    }
    few = plan_sweep(SweepSpec(random={"num_samples": 3, **ranges}))
    many = plan_sweep(SweepSpec(random={"num_samples": 100, **ranges}))
    assert [trial.config for trial in few] == [trial.config for trial in many[:3]]
    rates = [trial.config.server.learning_rate for trial in many]
    assert 0.001 <= min(rates) < 0.01
    assert 1.0 < max(rates) <= 10.0
    assert 35 <= sum(rate < 0.1 for rate in rates) <= 65
    assert {trial.config.cohort.cohort_size for trial in many} == {2, 3, 4}
    assert {trial.config.server.central_optimizer for trial in many} == {"sgd", "adam"}
    assert all(0 <= trial.config.server.central_lr_end <= 0.1 for trial in many)
    fewer_options = plan_sweep(SweepSpec(random={"num_samples": 3, "learning_rate": ranges["learning_rate"]}))
    assert [trial.config.server.learning_rate for trial in fewer_options] == rates[:3]


def test_random_options_are_independent_of_each_other_and_of_the_sample_before() -> None:
    names = ("learning_rate", "local_learning_rate", "central_lr_end", "local_weight_decay")
    ranges: dict[str, Any] = {name: {"uniform": [0.001, 1.0]} for name in names}
    trials = plan_sweep(SweepSpec(random={"num_samples": 400, **ranges}))
    values = np.array([[trial.varied[name] for name in names] for trial in trials])
    # Independent ones have a correlation of 1 / sqrt(400) = 0.05 in the middle.
    correlations = np.corrcoef(values.T) - np.eye(len(names))
    assert np.abs(correlations).max() < 0.2
    assert np.abs(np.corrcoef(values[1:, 0], values[:-1, 0])[0, 1]) < 0.2
    for column in values.T:
        counts, _ = np.histogram(column, bins=4, range=(0.001, 1.0))
        # 100 each, with a standard deviation of 8.7.
        assert all(65 <= count <= 135 for count in counts)


def test_random_choices_come_as_often_as_each_other() -> None:
    ranges: dict[str, Any] = {
        "central_optimizer": {"choice": ["sgd", "adam"]},
        "cohort_size": {"int_uniform": [2, 4]},
        "learning_rate": {"log_uniform": [0.001, 1.0]},
    }
    trials = plan_sweep(SweepSpec(random={"num_samples": 400, **ranges}))
    counts = Counter((trial.varied["central_optimizer"], trial.varied["cohort_size"]) for trial in trials)
    # 66.7 of each pair, with a standard deviation of 7.5: the ends come as often as the middle, and pairs are free.
    assert len(counts) == 6
    assert all(40 <= count <= 95 for count in counts.values())
    decades = np.histogram(np.log10([trial.varied["learning_rate"] for trial in trials]), bins=3, range=(-3, 0))[0]
    # 133 each, with a standard deviation of 9.4.
    assert all(100 <= count <= 167 for count in decades)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"grid": {"learning_rat": [1]}}, "sweep: grid: learning_rat: unknown option; did you mean learning_rate"),
        ({"grid": {"learning_rate": []}}, "grid: learning_rate: must be a list of different values"),
        ({"grid": {"learning_rate": [0.1, 0.1]}}, "grid: learning_rate: must be a list of different values"),
        ({"grid": {"learning_rate": 0.1}}, "grid: learning_rate: must be a list of different values"),
        ({"grid": {"cohort_size": [5, 0]}}, "cohort_size: 0 is impossible"),
        ({"grid": {"cohort_size": [5, "many"]}}, "sweep: cohort_size=many"),
        ({"grid": {"seed": [1, 2]}}, "seeds are given as seeds"),
        ({"grid": {"mu": [1]}, "random": {"num_samples": 1}}, "grid: given together with random"),
        ({"random": {"mu": {"uniform": [0, 1]}}}, "random: num_samples must say how many"),
        ({"random": {"num_samples": 2, "mu": {"normal": [0, 1]}}}, "random: mu: must be {choice: [values]}"),
        ({"random": {"num_samples": 2, "mu": {"log_uniform": [0, 1]}}}, "log_uniform with low above 0"),
        ({"settings": {"a": {"dataset": "cifar"}}}, "sweep: a"),
        ({"settings": ["a"]}, "settings: must be a mapping"),
        ({"settings": {"a b": {}, "a_b": {}}}, "two runs would both be called a_b-seed0"),
        ({"settings": {"a": {"best_metric": "micro_ap"}, "b": {}}}, "its runs have macro_ap and micro_ap"),
        ({"options": {"resume": True}}, "options: resume is set for each run"),
        ({"seeds": [0, 0]}, "seeds: one is given twice"),
        ({"seeds": 0}, "seeds: 0 is impossible; give how many, at least 1, or a list: [0]"),
        ({"seeds": []}, "seeds: must be a list"),
        ({"epsilons": 3}, "epsilons: must be a list of numbers and none"),
        ({"epsilons": ["much"]}, "epsilons: much is impossible; it must be a finite number above 0, or none"),
        ({"epsilons": [0]}, "epsilons: 0 is impossible"),
        ({"epsilons": [float("nan")]}, "epsilons: nan is impossible"),
        ({"epsilons": [1, 1.0]}, "epsilons: one is given twice"),
        ({"epsilons": [1], "overrides": {"central_epsilon": 2}}, "central_epsilon: given on the command line, and"),
        ({"epsilons": [1], "grid": {"central_epsilon": [2]}}, "central_epsilon: varied beside epsilons"),
        ({"epsilons": [1], "overrides": {"central_privacy_mechanism": "none"}}, "none promises none; drop it, or name"),
        ({"seeds": [-1]}, "seeds: must be a list of whole numbers"),
        ({"overrides": {"mu": 0.1}, "grid": {"mu": [1]}}, "mu: given on the command line, and varied"),
    ],
)
def test_what_could_not_be_run_or_compared_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(SweepSpec(**parts))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_and_strange_names_become_file_names() -> None:
    trials = plan_sweep(SweepSpec(settings={"../x" * 60: {}, "../y" * 60: {}}))
    assert all("/" not in trial.name and len(trial.name) < 140 for trial in trials)
    assert trials[0].name != trials[1].name


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("1", [0]), ("5,", [5]), ("5,2", [5, 2])])
def test_seeds_are_how_many_or_which(text: str, seeds: list[int]) -> None:
    trials = plan_sweep(sweep_spec({"grid": ["learning_rate=1"], "seeds": text}))
    assert [trial.seed for trial in trials] == seeds


def test_a_file_may_name_options_as_pfl_does(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "options: {model_name: small_cnn, central_num_iterations: 1e2, dataloader_num_workers: 4}\n"
        "settings: {one: {scaffold_use_gradient_as_control_variate: true, algorithm_name: scaffold}}\n"
    )
    spec = sweep_spec({"sweep_config": str(path)})
    (trial,) = plan_sweep(spec)
    algorithm = trial.config.algorithm
    assert (trial.config.model.model, algorithm.central_num_iterations, algorithm.scaffold_option) == (
        "small_cnn",
        100,
        1,
    )
    assert spec.notes == ("dataloader_num_workers: ignored: images are read by fedflair's own threads",)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "options: {cohort_size: 3, algorithm_name: fedprox}\nsettings: {natural: }\ngrid: {mu: [1.0]}\nseeds: [0, 1]\n"
    )
    given = {"sweep_config": str(path), "grid": ["mu=0.1,1e-2", "local_momentum=0.5"], "seeds": "7,", "cohort_size": 5}
    spec = sweep_spec(given)
    assert spec.grid == {"mu": [0.1, "1e-2"], "local_momentum": [0.5]}
    trials = plan_sweep(spec)
    assert [(t.config.algorithm.mu, t.config.run.seed, t.config.cohort.cohort_size) for t in trials] == [
        (0.1, 7, 5),
        (0.01, 7, 5),
    ]
    for text, message in (
        ("- 1", "has the parts"),
        ("grids: {}", "has the parts"),
        ("a: [", "not YAML"),
        ("[" * 50_000, "nested"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_sweep_file(path)
    with pytest.raises(ConfigError, match="no such sweep file"):
        read_sweep_file(tmp_path / "absent.yaml")
