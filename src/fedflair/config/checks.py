"""The checks of ``TrainConfig``, each made once, with an error that names the option and says what would be right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fedflair.errors import ConfigError

if TYPE_CHECKING:
    from fedflair.config.train_config import TrainConfig


def check(config: TrainConfig) -> None:
    """Raises ConfigError where an option is impossible, alone or together with another one."""
    _check_ranges(config)
    _check_training(config)
    _check_privacy(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda asked for, but this machine has no usable GPU; use --device auto")


def _check_ranges(config: TrainConfig) -> None:
    for name in _AT_LEAST_ONE:
        _require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    for name in _AT_LEAST_ZERO:
        value = getattr(config, name)
        _require(value >= 0 and math.isfinite(value), name, value, "a finite number of at least 0")
    for name in _POSITIVE:
        value = getattr(config, name)
        _require(value > 0 and math.isfinite(value), name, value, "a finite number above 0")
    for name in _FRACTIONS:
        _require(0 <= getattr(config, name) < 1, name, getattr(config, name), "in [0, 1)")
    for name in ("central_delta", "local_delta"):
        _require(0 < getattr(config, name) < 1, name, getattr(config, name), "in (0, 1)")
    for name in _AT_LEAST_ONE_IF_GIVEN:
        value = getattr(config, name)
        _require(value is None or value >= 1, name, value, "at least 1")
    _require(0 < config.top_k_fraction <= 1, "top_k_fraction", config.top_k_fraction, "in (0, 1]")
    quantile = config.adaptive_clipping_quantile
    _require(0 <= quantile <= 1, "adaptive_clipping_quantile", quantile, "in [0, 1]")
    _require(config.image_size >= 16, "image_size", config.image_size, "at least 16")


def _check_training(config: TrainConfig) -> None:
    if config.pretrained_weights is not None and not config.pretrained:
        raise ConfigError("pretrained_weights: given together with pretrained: false; drop one of the two")
    if config.binary_label is not None and config.label_subset is not None:
        raise ConfigError("binary_label: given together with label_subset; drop one of the two")
    if config.label_subset is not None and not 0 < len(config.label_subset) == len(set(config.label_subset)):
        raise ConfigError("label_subset: must hold at least one label, and none twice")
    if config.dataset == "flair_iid" and config.minimum_num_datapoints_per_user > 1:
        raise ConfigError("minimum_num_datapoints_per_user: artificial users have the sizes asked for; drop it")
    if config.algorithm_name == "scaffold" and config.local_momentum > 0:
        raise ConfigError("local_momentum: scaffold's control variates are defined for plain SGD; use 0")
    if config.algorithm_name == "central":
        _check_central(config)


def _check_central(config: TrainConfig) -> None:
    """Refuses what says something of clients, of which centralised training has none."""
    for name in ("compression", "dropout_rate", "over_selection", "weighting", "local_evaluation", "dataset"):
        neutral = type(config).__dataclass_fields__[name].default
        if getattr(config, name) != neutral:
            raise ConfigError(
                f"{name}: {getattr(config, name)} is about clients, and algorithm_name central has none; "
                f"leave it at {neutral}"
            )
    if config.local_batch_size > config.max_num_user_images:
        raise ConfigError("max_num_user_images: must be at least local_batch_size with algorithm_name central")


def _check_privacy(config: TrainConfig) -> None:
    mechanism = config.central_privacy_mechanism
    if mechanism == "none" and config.noise_cohort_size is not None and config.noise_cohort_size < config.cohort_size:
        raise ConfigError("noise_cohort_size: must be at least cohort_size")
    if config.adaptive_clipping and mechanism != "gaussian_moments_accountant":
        raise ConfigError(
            f"adaptive_clipping: {mechanism} has none; use --central_privacy_mechanism gaussian_moments_accountant"
        )
    if config.min_separation is not None and mechanism != "banded_matrix_factorization":
        raise ConfigError(
            f"min_separation: {mechanism} does not enforce any; use --central_privacy_mechanism "
            "banded_matrix_factorization, or drop it"
        )
    if mechanism != "none":
        _check_covered(config, f"central_privacy_mechanism {mechanism}")
        if config.over_selection > 0:
            raise ConfigError(
                "over_selection: whose answers count would depend on the others' speed, which no accountant covers; "
                "drop it, or the central privacy mechanism"
            )
    if config.local_privacy_mechanism != "none":
        _check_covered(config, f"local_privacy_mechanism {config.local_privacy_mechanism}")


def _check_covered(config: TrainConfig, mechanism: str) -> None:
    """Refuses what would carry users' data past the mechanism named; docs/privacy.md argues each."""
    if config.weighting != "uniform":
        raise ConfigError(
            f"weighting: {config.weighting} tells a user's number of images and gives some users more say; "
            f"{mechanism} needs uniform"
        )
    if config.algorithm_name == "scaffold":
        raise ConfigError(
            f"algorithm_name: scaffold's control variates would reach the server past {mechanism}; use fedavg"
        )
    if config.algorithm_name == "central":
        raise ConfigError(f"algorithm_name: central training has no clients for {mechanism} to protect; use fedavg")
    if config.algorithm_name == "adafedprox" and not config.adafedprox_metric_name.startswith("val/"):
        raise ConfigError(
            f"adafedprox_metric_name: {config.adafedprox_metric_name} is measured on training users without noise and "
            f"would steer the model past {mechanism}; use a metric of val, such as val/macro_loss"
        )


_AT_LEAST_ONE = (
    "max_num_user_images",
    "minimum_num_datapoints_per_user",
    "mean_datapoints_per_user",
    "num_trainable_blocks",
    "central_num_iterations",
    "central_batch_size",
    "cohort_size",
    "weight_clip",
    "local_num_epochs",
    "local_batch_size",
    "evaluation_frequency",
    "central_eval_batch_size",
    "adafedprox_decrease_after",
)
_AT_LEAST_ONE_IF_GIVEN = (
    "local_num_steps",
    "central_order",
    "local_order",
    "population",
    "noise_cohort_size",
    "min_separation",
    "adafedprox_adapt_frequency",
    "scaffold_max_clients",
)
_AT_LEAST_ZERO = (
    "central_lr_num_warmup_iterations",
    "central_lr_end",
    "central_weight_decay",
    "local_lr_end",
    "local_weight_decay",
    "mu",
    "over_selection",
    "client_speed_std",
    "val_cohort_size",
    "early_stopping_patience",
    "seed",
    "num_threads",
    "workers",
    "gpus_per_worker",
)
_FRACTIONS = ("adam_beta1", "adam_beta2", "dropout_rate", "local_momentum")
_POSITIVE = (
    "local_learning_rate",
    "local_max_grad_norm",
    "learning_rate",
    "central_lr_power",
    "adaptivity_degree",
    "adafedprox_step_size",
    "client_seconds_per_image",
    "client_bandwidth",
    "central_epsilon",
    "central_privacy_clipping_bound",
    "adaptive_clipping_learning_rate",
    "local_epsilon",
    "local_privacy_clipping_bound",
    "cpus_per_worker",
    "worker_timeout",
)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")
