"""What is computed by both, with randomness taken out: fedflair's options, which ``theirs.py`` reads for pfl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedflair.config.train_config import TrainConfig

NUM_ROUNDS = 4
NOISE_SEED = 20

# Images of the users, all of whom are in each round.
SIZES = [5, 2, 6]

_COMMON: dict[str, Any] = {
    "pretrained": False,
    "local_augmentation": "none",
    "cohort_size": len(SIZES),
    "central_num_iterations": NUM_ROUNDS,
    "central_optimizer": "sgd",
    "learning_rate": 1.0,
    "central_lr_schedule": "constant",
    "central_lr_num_warmup_iterations": 0,
    "local_learning_rate": 0.01,
    "local_num_epochs": 2,
    "local_batch_size": 4,
    "local_max_grad_norm": 100.0,
    "evaluation_frequency": 1,
    "device": "cpu",
    "like": "pfl",
}

_PRIVATE = {
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "central_privacy_clipping_bound": 0.05,
    "population": 10**7,
    "allow_large_delta": True,
    "noise_cohort_size": 5000,
    "cohort_sampling": "poisson",
}

CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavg, all of a user in a batch": {"local_batch_size": 64},
    "fedavg, gradients clipped": {"local_max_grad_norm": 0.2},
    "fedavg, weighted by images": {"weighting": "num_examples"},
    "fedavg, server SGD with momentum": {"central_optimizer": "avgm", "learning_rate": 0.5},
    "fedavg, server AdamW": {"central_optimizer": "adam", "learning_rate": 0.02},
    "fedavg, server AdamW, warm-up and decay": {
        "central_optimizer": "adam",
        "learning_rate": 0.02,
        "central_lr_schedule": "polynomial",
        "central_lr_num_warmup_iterations": 2,
        "central_lr_end": 0.004,
    },
    "fedprox": {"algorithm_name": "fedprox", "mu": 0.5},
    # With a step that overshoots the loss on val falls and rises, and mu follows it.
    "adafedprox": {
        "algorithm_name": "adafedprox",
        "adafedprox_metric_name": "val/loss",
        "mu": 0.0,
        "learning_rate": 12.0,
    },
    "scaffold, option 1": {"algorithm_name": "scaffold", "scaffold_option": 1},
    "scaffold, option 2": {"algorithm_name": "scaffold", "scaffold_option": 2},
    "reptile": {"algorithm_name": "reptile", "learning_rate": 0.3},
    "updates clipped": {"central_privacy_mechanism": "norm_clipping_only", "central_privacy_clipping_bound": 0.05},
    "updates clipped, the same noise": _PRIVATE,
}


NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"model": "multi_label_cnn", "image_size": 64},
    "small_cnn": {"model": "small_cnn", "image_size": 32},
}


def config_of(case: str, network: str, store: Path) -> TrainConfig:
    return TrainConfig.of(data_path=store, **{**_COMMON, **NETWORKS[network], **CASES[case]})
