"""Small training runs for this folder's tests: seconds each, every mechanism among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedflair.config.train_config import TrainConfig

MECHANISMS: dict[str, dict[str, Any]] = {
    "gaussian": {"central_privacy_mechanism": "gaussian", "central_epsilon": 20.0},
    "laplace": {"central_privacy_mechanism": "laplace", "central_epsilon": 20.0},
    "moments": {"central_privacy_mechanism": "gaussian_moments_accountant"},
    "fixed": {"central_privacy_mechanism": "gaussian_moments_accountant", "cohort_sampling": "fixed"},
    "simulated": {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "population": 20,
        "noise_cohort_size": 6,
    },
    "adaptive": {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "adaptive_clipping": True,
        "adaptive_clipping_noise_std": 2.0,
    },
    "grouped": {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "adaptive_clipping": True,
        "adaptive_clipping_noise_std": 3.0,
        "clipping_groups": "kinds",
        "central_optimizer": "adam_bc",
    },
    "metrics": {"central_privacy_mechanism": "gaussian_moments_accountant", "private_metrics": 0.2},
    "banded": {"central_privacy_mechanism": "banded_matrix_factorization", "cohort_size": 1, "min_separation": 3},
    "apart": {
        "central_privacy_mechanism": "banded_matrix_factorization",
        "cohort_sampling": "b_min_separation",
        "cohort_size": 2,
        "min_separation": 2,
    },
    "blt": {"central_privacy_mechanism": "buffered_linear_toeplitz", "cohort_size": 2, "num_buffers": 2},
    "local gaussian": {"local_privacy_mechanism": "gaussian"},
    "local laplace": {"local_privacy_mechanism": "laplace"},
    "both": {"central_privacy_mechanism": "gaussian_moments_accountant", "local_privacy_mechanism": "gaussian"},
}


def run_config(store: Path, run: Path, name: str, **options: Any) -> TrainConfig:
    """A run of 8 rounds over the tiny store, with the mechanism of that name."""
    defaults: dict[str, Any] = {
        "data_path": store,
        "run": run,
        "model": "small_cnn",
        "pretrained": False,
        "image_size": 32,
        "cohort_size": 3,
        "local_num_epochs": 1,
        "central_num_iterations": 8,
        "evaluation_frequency": 3,
        "central_lr_num_warmup_iterations": 0,
        "central_epsilon": 8.0,
        "central_delta": 0.01,
        "local_epsilon": 8.0,
        "num_threads": 1,
        "device": "cpu",
    }
    return TrainConfig.of(**{**defaults, **MECHANISMS[name], **options})
