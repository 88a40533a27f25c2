"""Options that do nothing are refused where they are typed, and carried where a file has them."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
import yaml

from fedflair.commands.train import parse_train_config
from fedflair.config.effects import EFFECTIVE_WITH, SET, has_effect
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.sweep.plan import plan_sweep, sweep_spec


def test_a_budget_without_a_mechanism_is_refused() -> None:
    """It trained without any privacy."""
    with pytest.raises(ConfigError) as caught:
        parse_train_config(["--central_epsilon", "1"])
    assert str(caught.value) == (
        "central_epsilon: has no effect with central_privacy_mechanism none; drop it, or give "
        "--central_privacy_mechanism gaussian_moments_accountant (or gaussian, laplace, banded_matrix_factorization, "
        "banded_inverse_square_root, buffered_linear_toeplitz, tree_aggregation, auto)"
    )


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("--central_delta 1e-6", "central_delta"),
        ("--central_privacy_mechanism norm_clipping_only --central_epsilon 1", "central_epsilon"),
        ("--population 100", "population"),
        ("--noise_cohort_size 5000", "noise_cohort_size"),
        ("--accountant rdp", "accountant"),
        ("--min_separation 3", "min_separation"),
        ("--args_config coarse_pretrained_private --min_separation 3", "min_separation"),
        ("--allow_large_delta", "allow_large_delta"),
        ("--noise_from_seed", "noise_from_seed"),
        ("--local_epsilon 1 --central_privacy_mechanism gaussian", "local_epsilon"),
        ("--adaptive_clipping_quantile 0.4 --central_privacy_mechanism gaussian_moments_accountant", "adaptive_clip"),
        ("--args_config coarse_pretrained_private --central_privacy_mechanism none --central_delta 1e-6", "central_de"),
        ("--mu 0.1", "mu"),
        ("--top_k_fraction 0.1 --compression quantize_8bit", "top_k_fraction"),
        ("--args_config demo --model_type resnet50", "model_type"),
        ("--scaffold_option 1", "scaffold_option"),
        ("--mean_datapoints_per_user 5", "mean_datapoints_per_user"),
        ("--central_optimizer sgd --adam_beta1 0.5", "adam_beta1"),
        ("--lora_rank 4", "lora_rank"),
        ("--reduction fast", "reduction"),
        ("--local_num_steps 3 --local_num_epochs 2", "local_num_epochs"),
        ("--algorithm_name central --max_num_user_images 512 --cohort_size 3", "cohort_size"),
    ],
)
def test_what_is_typed_in_vain_is_refused(line: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}.*: has no effect with .*; drop it, or give --") as caught:
        parse_train_config(shlex.split(line))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "--args_config coarse_pretrained_private --central_privacy_mechanism none",
        "--args_config baseline --central_privacy_mechanism banded_matrix_factorization",
        "--args_config demo --central_privacy_mechanism laplace --central_epsilon 1 --central_delta 1e-9",
        "--noise_from_seed false --allow_large_delta false --adaptive_clipping false",
        "--local_privacy_mechanism gaussian --local_delta 0.1 --allow_large_delta --noise_from_seed",
        "--local_privacy_mechanism norm_clipping_only --local_privacy_clipping_bound 1",
        "--algorithm_name fedprox --mu 0.1",
    ],
)
def test_what_a_file_carries_and_what_is_switched_off_is_no_mistake(line: str) -> None:
    words = shlex.split(line)
    config = parse_train_config(words)
    # What was given is there, switched off or not.
    for name, value in itertools.pairwise(words):
        if name.startswith("--") and name not in ("--args_config",) and not value.startswith("--"):
            assert config.option(name[2:]) == yaml.safe_load(value.replace("e-", ".0e-"))


def test_the_table_names_options_and_values_that_there_are() -> None:
    default = TrainConfig()
    for name, needed in EFFECTIVE_WITH.items():
        for other, values in needed.items():
            assert {name, other} <= set(NAMES)
            for value in values:
                more = {"max_num_user_images": 16} if value == "central" else {}
                if values is SET:
                    value = {"workers": 2, "ray_address": "localhost:6379"}[other]
                if other == "adaptive_clipping" or value == "adam_bc":
                    more = {"central_privacy_mechanism": "gaussian_moments_accountant"}
                assert has_effect(default.changed(**{other: value, **more}), name)


MECHANISMS = "central_privacy_mechanism=none,gaussian_moments_accountant"


def test_a_sweep_may_vary_what_one_of_its_points_uses(tmp_path: Path) -> None:
    given = {"grid": [MECHANISMS, "central_epsilon=1,2"], "seeds": "1"}
    assert len(plan_sweep(sweep_spec(dict(given)))) == 4
    assert len(plan_sweep(sweep_spec({**given, "central_delta": 1e-6}))) == 4
    with pytest.raises(
        ConfigError, match=r"^sweep: central_epsilon: has no effect with central_privacy_mechanism none"
    ):
        plan_sweep(sweep_spec({"grid": ["central_epsilon=1,2"]}))
    with pytest.raises(ConfigError, match=r"^central_delta: has no effect with central_privacy_mechanism none"):
        plan_sweep(sweep_spec({"grid": ["learning_rate=1,2"], "central_delta": 1e-6}))
    file = tmp_path / "sweep.yaml"
    file.write_text("random: {num_samples: 2, mu: {uniform: [0, 1]}}\n")
    with pytest.raises(ConfigError, match=r"^sweep: mu: has no effect with algorithm_name fedavg"):
        plan_sweep(sweep_spec({"sweep_config": str(file)}))
