"""Every option at the ends of what it may be, and just beyond them; and what two options cannot be together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, PrivacyError

AT_LEAST_ONE = (
    "central_num_iterations", "adafedprox_decrease_after", "central_batch_size", "cohort_size", "weight_clip",
    "minimum_num_datapoints_per_user", "max_num_user_images", "mean_datapoints_per_user", "evaluation_frequency",
    "central_eval_batch_size", "local_num_epochs", "local_batch_size", "num_trainable_blocks", "lora_rank",
    "adafedprox_adapt_frequency", "scaffold_max_clients", "central_order", "population", "noise_cohort_size",
    "local_num_steps", "local_order",
)  # fmt: skip
AT_LEAST_ZERO = (
    "mu", "over_selection", "client_speed_std", "val_cohort_size", "early_stopping_patience", "num_threads", "workers",
    "gpus_per_worker", "local_weight_decay", "local_lr_end", "seed", "central_lr_num_warmup_iterations",
    "central_lr_end", "central_weight_decay",
)  # fmt: skip
POSITIVE = (
    "adafedprox_step_size", "central_epsilon", "central_privacy_clipping_bound", "adaptive_clipping_learning_rate",
    "client_seconds_per_image", "client_bandwidth", "cpus_per_worker", "worker_timeout", "local_learning_rate",
    "local_max_grad_norm", "local_epsilon", "local_privacy_clipping_bound", "learning_rate", "central_lr_power",
    "adaptivity_degree", "lora_alpha",
)  # fmt: skip
FRACTION = ("dropout_rate", "local_momentum", "adam_beta1", "adam_beta2")
PROBABILITY = ("central_delta", "local_delta")

ALLOWED: list[tuple[str, Any]] = [
    *((name, 1) for name in AT_LEAST_ONE),
    *((name, 0) for name in AT_LEAST_ZERO),
    *((name, 1e-9) for name in POSITIVE),
    *((name, value) for name in FRACTION for value in (0.0, 0.999)),
    *((name, value) for name in PROBABILITY for value in (1e-300, 0.999)),
    *(("adaptive_clipping_quantile", value) for value in (0.0, 1.0)),
    *(("top_k_fraction", value) for value in (1e-9, 1.0)),
    ("image_size", 16),
]
REFUSED: list[tuple[str, Any]] = [
    *((name, value) for name in AT_LEAST_ONE for value in (0, -1)),
    *((name, -1) for name in AT_LEAST_ZERO),
    *((name, value) for name in POSITIVE for value in (0.0, -1e-9, math.inf, math.nan)),
    *((name, value) for name in FRACTION for value in (-1e-9, 1.0)),
    *((name, value) for name in PROBABILITY for value in (0.0, 1.0)),
    *(("adaptive_clipping_quantile", value) for value in (-1e-9, 1.0 + 1e-9)),
    *(("top_k_fraction", value) for value in (0.0, 1.0 + 1e-9)),
    ("image_size", 15),
]


def test_the_ends_are_allowed() -> None:
    for name, value in ALLOWED:
        # Noise for fewer clients than the run has is refused by another check.
        with_it = {"cohort_size": 1} if name == "noise_cohort_size" else {}
        assert TrainConfig.of(**{name: value}, **with_it).option(name) == value


def test_what_lies_beyond_is_refused_by_name() -> None:
    for name, value in REFUSED:
        with pytest.raises(ConfigError, match=f"^{name}: {value}"):
            TrainConfig.of(**{name: value})


PRIVATE = {"central_privacy_mechanism": "gaussian_moments_accountant"}
LOCAL = {"local_privacy_mechanism": "gaussian"}


@pytest.mark.parametrize("mechanism", [PRIVATE, LOCAL])
@pytest.mark.parametrize(
    ("options", "refused", "allowed"),
    [
        ({"weighting": "num_examples"}, "weighting: num_examples", {"weighting": "uniform"}),
        ({"algorithm_name": "scaffold"}, "algorithm_name: scaffold", {"algorithm_name": "fedprox"}),
        ({"algorithm_name": "central"}, "algorithm_name: central", {"algorithm_name": "fedavg"}),
        (
            {"algorithm_name": "adafedprox", "adafedprox_metric_name": "train/loss"},
            "adafedprox_metric_name: train/loss is measured on training users",
            {"algorithm_name": "adafedprox", "adafedprox_metric_name": "val/macro_loss"},
        ),
    ],
)
def test_nothing_carries_data_past_a_mechanism(
    mechanism: dict[str, Any], options: dict[str, Any], refused: str, allowed: dict[str, Any]
) -> None:
    with pytest.raises((ConfigError, PrivacyError), match=refused):
        TrainConfig.of(**mechanism, **options)
    TrainConfig.of(**mechanism, **allowed)
    TrainConfig.of(**options)


@pytest.mark.parametrize(
    ("together", "message"),
    [
        ({"algorithm_name": "scaffold", "local_momentum": 0.1}, "local_momentum: scaffold"),
        ({"algorithm_name": "central", "local_batch_size": 17, "max_num_user_images": 16}, "max_num_user_images: must"),
        ({**PRIVATE, "over_selection": 0.1}, "over_selection: whose answers count"),
        ({"noise_cohort_size": 4, "cohort_size": 5}, "noise_cohort_size: must be at least cohort_size"),
        ({"adaptive_clipping": True}, "adaptive_clipping: none has none"),
        ({"label_subset": ()}, "label_subset: must hold at least one label"),
        ({"label_subset": ("sky", "sky")}, "label_subset: must hold at least one label, and none twice"),
        ({"label_subset": ("sky",), "binary_label": "sky"}, "binary_label: given together with label_subset"),
        ({"dataset": "flair_iid", "minimum_num_datapoints_per_user": 2}, "minimum_num_datapoints_per_user: artificial"),
    ],
)
def test_what_cannot_be_together(together: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.of(**together)


def test_what_can_be_together() -> None:
    for together in (
        {"algorithm_name": "central", "local_batch_size": 16, "max_num_user_images": 16},
        {"noise_cohort_size": 5, "cohort_size": 5},
        {"label_subset": ("sky", "plant")},
        {"algorithm_name": "scaffold", "local_momentum": 0.0},
    ):
        config = TrainConfig.of(**together)
        assert {name: config.option(name) for name in together} == together


def test_the_defaults_train_plainly() -> None:
    """What is not asked for is off: each of these changes the published algorithm."""
    off = {
        "local_momentum": 0.0, "local_weight_decay": 0.0, "central_weight_decay": 0.0, "dropout_rate": 0.0,
        "over_selection": 0.0, "compression": "none", "weighting": "uniform", "early_stopping_patience": 0,
        "central_privacy_mechanism": "none", "local_privacy_mechanism": "none", "adaptive_clipping": False,
        "noise_from_seed": False, "allow_large_delta": False, "label_subset": None, "binary_label": None,
        "trainable": "all", "precision": "fp32", "algorithm_name": "fedavg",
    }  # fmt: skip
    values = TrainConfig().as_dict()
    assert {name: values[name] for name in off} == off
