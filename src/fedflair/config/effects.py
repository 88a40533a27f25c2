"""When an option has an effect: what is given on the command line and does nothing is refused.

A file may carry options for a mechanism or an algorithm that another line chooses, as the shipped configurations do
(``min_separation`` in ``baseline.yaml``); who types an option means it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedflair.config.allowed import word
from fedflair.config.names import OWN_NAMES
from fedflair.config.train_config import TrainConfig
from fedflair.errors import UsageError

# Noise that is correlated over rounds; and auto, which may choose it.
_CORRELATED = (
    "banded_matrix_factorization",
    "banded_inverse_square_root",
    "buffered_linear_toeplitz",
    "tree_aggregation",
    "auto",
)
_CENTRAL = ("gaussian_moments_accountant", "gaussian", "laplace", *_CORRELATED)
_CENTRAL_CLIPPING = (*_CENTRAL, "norm_clipping_only")
_LOCAL = ("gaussian", "laplace")
_PROXIMAL = ("fedprox", "adafedprox")
_FEDERATED = ("fedavg", "fedprox", "adafedprox", "scaffold", "reptile")
_FALLING = ("polynomial", "cosine")

# Any value but null and 0.
SET = ("any",)
_RAY = {"workers": SET, "ray_address": SET}


class _AboveZero(tuple[float, ...]):
    """Every number above 0 is in it; its items are what a message proposes."""

    __slots__ = ()

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and value > 0


# An option -> the other options that give it an effect, any one of them at one of the values named there.
EFFECTIVE_WITH: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "central_epsilon": {"central_privacy_mechanism": _CENTRAL},
    "central_delta": {"central_privacy_mechanism": _CENTRAL},
    "central_privacy_clipping_bound": {"central_privacy_mechanism": _CENTRAL_CLIPPING},
    "central_order": {"central_privacy_mechanism": _CENTRAL_CLIPPING},
    "population": {"central_privacy_mechanism": _CENTRAL},
    "noise_cohort_size": {"central_privacy_mechanism": _CENTRAL},
    "accountant": {"central_privacy_mechanism": _CENTRAL},
    "min_separation": {"central_privacy_mechanism": _CORRELATED, "cohort_sampling": ("rotating",)},
    "num_buffers": {"central_privacy_mechanism": _CORRELATED},
    "adaptive_clipping": {"central_privacy_mechanism": ("gaussian_moments_accountant",)},
    "adaptive_clipping_quantile": {"adaptive_clipping": (True,)},
    "adaptive_clipping_learning_rate": {"adaptive_clipping": (True,)},
    "adaptive_clipping_noise_std": {"adaptive_clipping": (True,)},
    "clipping_groups": {"adaptive_clipping": (True,)},
    "private_metrics": {"central_privacy_mechanism": _CENTRAL},
    "private_metrics_loss_bound": {"private_metrics": _AboveZero((0.05,))},
    "private_metrics_images_bound": {"private_metrics": _AboveZero((0.05,))},
    "local_epsilon": {"local_privacy_mechanism": _LOCAL},
    "local_delta": {"local_privacy_mechanism": _LOCAL},
    "local_privacy_clipping_bound": {"local_privacy_mechanism": (*_LOCAL, "norm_clipping_only")},
    "local_order": {"local_privacy_mechanism": (*_LOCAL, "norm_clipping_only")},
    "allow_large_delta": {"central_privacy_mechanism": _CENTRAL, "local_privacy_mechanism": _LOCAL},
    "noise_from_seed": {"central_privacy_mechanism": _CENTRAL, "local_privacy_mechanism": _LOCAL},
    "mu": {"algorithm_name": _PROXIMAL},
    "adafedprox_metric_name": {"algorithm_name": ("adafedprox",)},
    "adafedprox_adapt_frequency": {"algorithm_name": ("adafedprox",)},
    "adafedprox_step_size": {"algorithm_name": ("adafedprox",)},
    "adafedprox_decrease_after": {"algorithm_name": ("adafedprox",)},
    "scaffold_option": {"algorithm_name": ("scaffold",)},
    "scaffold_states": {"algorithm_name": ("scaffold",)},
    "scaffold_dtype": {"algorithm_name": ("scaffold",)},
    "scaffold_max_clients": {"algorithm_name": ("scaffold",)},
    "central_batch_size": {"algorithm_name": ("central",)},
    "cohort_size": {"algorithm_name": _FEDERATED},
    "cohort_sampling": {"algorithm_name": _FEDERATED},
    "local_learning_rate": {"algorithm_name": _FEDERATED},
    "local_num_steps": {"algorithm_name": _FEDERATED},
    "frozen_features": {"local_augmentation": ("none",)},
    "local_lr_end": {"local_lr_schedule": _FALLING},
    "central_lr_end": {"central_lr_schedule": _FALLING},
    "central_lr_power": {"central_lr_schedule": ("polynomial",)},
    "adaptivity_degree": {"central_optimizer": ("adam", "adam_bc", "adagrad", "yogi")},
    "adam_beta1": {"central_optimizer": ("adam", "adam_bc", "yogi", "avgm")},
    "adam_beta2": {"central_optimizer": ("adam", "adam_bc", "yogi")},
    "top_k_fraction": {"compression": ("top_k",)},
    "weight_clip": {"weighting": ("clipped",)},
    "mean_datapoints_per_user": {"dataset": ("flair_iid",)},
    "datapoints_per_user_distribution": {"dataset": ("flair_iid",)},
    "model_type": {"model": ("multi_label_cnn",)},
    "num_trainable_blocks": {"trainable": ("last_block",)},
    "lora_rank": {"trainable": ("lora",)},
    "lora_alpha": {"trainable": ("lora",)},
    "lora_layers": {"trainable": ("lora",)},
    "local_num_epochs": {"local_num_steps": (None,)},
    "cpus_per_worker": _RAY,
    "gpus_per_worker": _RAY,
    "worker_timeout": _RAY,
    "reduction": _RAY,
}


def has_effect(config: TrainConfig, name: str) -> bool:
    """Whether the option's value makes a difference to a run of this configuration."""
    needed = EFFECTIVE_WITH.get(name, {})
    return not needed or any(
        (bool(config.option(other)) if values is SET else config.option(other) in values) or _is_plugins(config, other)
        for other, values in needed.items()
    )


def _is_plugins(config: TrainConfig, name: str) -> bool:
    """Whether the option names something of a plugin, which may read any option."""
    return name in OWN_NAMES and config.option(name) not in OWN_NAMES[name]


def refuse_without_effect(given: Mapping[str, Any], configs: Iterable[TrainConfig], where: str = "") -> None:
    """Raises UsageError for an option that was given and has no effect in any of the configurations.

    given: what was typed; an option that is switched off asks for nothing. where: what the message begins with.
    """
    every = list(configs)
    for name, value in given.items():
        if value is None or value is False or any(has_effect(config, name) for config in every):
            continue
        now = " and ".join(f"{other} {word(every[0].option(other))}" for other in EFFECTIVE_WITH[name])
        remedy = " or ".join(_given(other, values) for other, values in EFFECTIVE_WITH[name].items())
        raise UsageError(f"{where}{name}: has no effect with {now}; drop it, or give {remedy}")


def _given(name: str, values: tuple[Any, ...]) -> str:
    """An option at one of these values, as it is typed."""
    if values is SET:
        return f"--{name} {'N' if name == 'workers' else 'ADDRESS'}"
    return f"--{name} {word(values[0])}" + (f" (or {', '.join(map(word, values[1:]))})" if values[1:] else "")
