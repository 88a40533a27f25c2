"""The configuration of a training run: groups of options, and what options of several groups say together.

Every default is written once, in its group (``groups/``). The options' published names are the fields' names, no two of
them alike; YAML files, the command line and run folders know these names only, and nothing of the groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedflair.config.groups.algorithm import AlgorithmOptions
from fedflair.config.groups.central_privacy import CentralMechanismOptions
from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.groups.data import DataOptions
from fedflair.config.groups.evaluation import EvaluationOptions
from fedflair.config.groups.hardware import HardwareOptions
from fedflair.config.groups.local import LocalTrainingOptions
from fedflair.config.groups.local_privacy import LocalMechanismOptions
from fedflair.config.groups.model import ModelOptions
from fedflair.config.groups.run import RunOptions
from fedflair.config.groups.server import ServerOptions
from fedflair.config.names import OWN_NAMES, PLUGIN_GROUP, unknown_name
from fedflair.errors import ConfigError
from fedflair.sampling import AskedSampling
from fedflair.system.own_code import installed_modules

GROUPS: dict[str, type[Any]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "algorithm": AlgorithmOptions,
    "cohort": CohortOptions,
    "local": LocalTrainingOptions,
    "server": ServerOptions,
    "evaluation": EvaluationOptions,
    "central_privacy": CentralMechanismOptions,
    "local_privacy": LocalMechanismOptions,
    "run": RunOptions,
    "hardware": HardwareOptions,
}
# An option's published name -> the group that it belongs to.
GROUP_OF: dict[str, str] = {
    option.name: group for group, options in GROUPS.items() for option in dataclasses.fields(options)
}
NAMES = tuple(GROUP_OF)
# How cohorts are drawn where nobody says; by coins for all other mechanisms.
_SAMPLING_OF: dict[str, AskedSampling] = {
    "none": "fixed",
    "banded_inverse_square_root": "rotating",
    "buffered_linear_toeplitz": "rotating",
    "tree_aggregation": "rotating",
    "auto": "auto",
}


# What cohorts by coins with a separation are accounted for.
_APART = ("banded_matrix_factorization", "auto")


@dataclass(frozen=True, repr=False)
class TrainConfig:
    """Options of ``fedflair train``, by group. Raises ConfigError where they cannot be, alone or together."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    algorithm: AlgorithmOptions = field(default_factory=AlgorithmOptions)
    cohort: CohortOptions = field(default_factory=CohortOptions)
    local: LocalTrainingOptions = field(default_factory=LocalTrainingOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    central_privacy: CentralMechanismOptions = field(default_factory=CentralMechanismOptions)
    local_privacy: LocalMechanismOptions = field(default_factory=LocalMechanismOptions)
    run: RunOptions = field(default_factory=RunOptions)
    hardware: HardwareOptions = field(default_factory=HardwareOptions)

    def __post_init__(self) -> None:
        _check_names(self)
        _check_algorithm(self)
        _check_privacy(self)
        _check_like(self)

    def __repr__(self) -> str:
        """The options that are not their defaults."""
        given = {name: getattr(getattr(self, group), name) for name, group in GROUP_OF.items()}
        plain = {name: getattr(GROUPS[group](), name) for name, group in GROUP_OF.items()}
        shown = (f"{name}={_plain(value)!r}" for name, value in given.items() if value != plain[name])
        return f"TrainConfig.of({', '.join(shown)})"

    @classmethod
    def of(cls, **options: Any) -> TrainConfig:
        """The configuration with these options, under their published names, already of their types."""
        return cls(**{group: kind(**_of_group(group, options)) for group, kind in GROUPS.items()})

    def changed(self, **options: Any) -> TrainConfig:
        """The same with other values for these options, under their published names."""
        groups = {GROUP_OF[name] for name in options}
        return dataclasses.replace(
            self, **{group: dataclasses.replace(getattr(self, group), **_of_group(group, options)) for group in groups}
        )

    def option(self, name: str) -> Any:
        """The value of the option of that published name."""
        return getattr(getattr(self, GROUP_OF[name]), name)

    @property
    def setting(self) -> str:
        """Short name of the benchmark setting, e.g. ``flair_iid + gaussian_moments_accountant``, or ``central``."""
        if self.algorithm.algorithm_name == "central":
            return "central"
        private = self.central_privacy.central_privacy_mechanism
        return self.data.dataset if private == "none" else f"{self.data.dataset} + {private}"

    @property
    def batch_size(self) -> int:
        """Images in a local step at most: ``local_batch_size``, or as many as a client can have."""
        return self.local.local_batch_size or self.data.max_num_user_images

    @property
    def sampling(self) -> AskedSampling:
        """How cohorts are drawn; ``auto`` only where that goes with the mechanism that is yet to be chosen."""
        if self.cohort.cohort_sampling != "auto":
            return self.cohort.cohort_sampling
        return _SAMPLING_OF.get(self.central_privacy.central_privacy_mechanism, "poisson")

    def as_dict(self) -> dict[str, Any]:
        """Plain values by published name, for YAML and JSON."""
        return {name: _plain(self.option(name)) for name in NAMES}


def _of_group(group: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that belong to a group. Raises KeyError where there is no option of a name."""
    return {name: value for name, value in options.items() if GROUP_OF[name] == group}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _check_names(config: TrainConfig) -> None:
    """Refuses names that are not fedflair's own where no plugin could have added them."""
    for option, known in OWN_NAMES.items():
        value = config.option(option)
        if value not in known and not config.run.plugins and not installed_modules(PLUGIN_GROUP):
            raise ConfigError(unknown_name(option, value, known, "; a plugin's needs --plugins MODULE"))


def _check_algorithm(config: TrainConfig) -> None:
    name = config.algorithm.algorithm_name
    if name == "scaffold" and config.local.local_momentum > 0:
        raise ConfigError("local_momentum: scaffold's control variates are defined for plain SGD; use 0")
    if name != "central":
        return
    _refuse_clients(
        config, ("compression", "dropout_rate", "over_selection", "weighting", "local_evaluation", "dataset")
    )
    if config.local.local_batch_size is None:
        raise ConfigError("local_batch_size: algorithm_name central cuts its batches into pieces of it; give a number")
    if config.local.local_batch_size > config.data.max_num_user_images:
        raise ConfigError("max_num_user_images: must be at least local_batch_size with algorithm_name central")


def _refuse_clients(config: TrainConfig, names: Iterable[str]) -> None:
    """Refuses what says something of clients, of which centralised training has none."""
    for name in names:
        neutral = getattr(GROUPS[GROUP_OF[name]](), name)
        if config.option(name) != neutral:
            raise ConfigError(
                f"{name}: {config.option(name)} is about clients, and algorithm_name central has none; "
                f"leave it at {neutral}"
            )


def _check_like(config: TrainConfig) -> None:
    """Refuses what ``like: pfl`` cannot mean."""
    algorithm, name = config.algorithm, config.algorithm.algorithm_name
    if algorithm.like is None:
        return
    if name == "central":
        raise ConfigError("like: pfl has no centralised training; drop it")
    if name == "adafedprox" and algorithm.mu != 0:
        raise ConfigError(
            f"mu: {algorithm.mu} with like pfl, whose adafedprox starts from 0; leave it out, or drop like"
        )
    if config.data.dataset != "flair_iid":
        return
    anew = "like: pfl draws the artificial users of flair_iid anew in each round, so that "
    if name == "scaffold":
        raise ConfigError(f"{anew}there is no state of one to keep; drop it, or use --dataset flair")
    mechanisms = {config.central_privacy.central_privacy_mechanism, config.local_privacy.local_privacy_mechanism}
    if mechanisms - {"none", "norm_clipping_only"}:
        raise ConfigError(
            f"{anew}there is nobody whom an epsilon could be promised to; drop it, which makes them groups of images "
            "that stay (--args_config baseline has the published population)"
        )


def _check_privacy(config: TrainConfig) -> None:
    central, local = config.central_privacy, config.local_privacy
    mechanism = central.central_privacy_mechanism
    if mechanism == "none" and (central.noise_cohort_size or config.cohort.cohort_size) < config.cohort.cohort_size:
        raise ConfigError("noise_cohort_size: must be at least cohort_size")
    if config.cohort.cohort_sampling == "b_min_separation" and mechanism not in _APART:
        raise ConfigError(
            f"cohort_sampling: b_min_separation is not accounted for central_privacy_mechanism {mechanism}; use "
            "banded_matrix_factorization, or other cohorts"
        )
    if config.server.central_optimizer == "adam_bc" and mechanism in ("none", "norm_clipping_only"):
        raise ConfigError(
            f"central_optimizer: adam_bc corrects for a central mechanism's noise, and {mechanism} adds none; use "
            "adam, or give --central_privacy_mechanism gaussian_moments_accountant"
        )
    if mechanism != "none":
        _check_covered(config, f"central_privacy_mechanism {mechanism}")
        if config.cohort.over_selection > 0:
            raise ConfigError(
                "over_selection: whose answers count would depend on the others' speed, which no accountant covers; "
                "drop it, or the central privacy mechanism"
            )
    if local.local_privacy_mechanism != "none":
        if central.private_metrics > 0:
            raise ConfigError(
                f"private_metrics: get the central noise alone, and would pass {local.local_privacy_mechanism}'s local "
                "promise by; drop it, or the local privacy mechanism"
            )
        _check_covered(config, f"local_privacy_mechanism {local.local_privacy_mechanism}")


def _check_covered(config: TrainConfig, mechanism: str) -> None:
    """Refuses what would carry users' data past the mechanism named; docs/privacy.md argues each."""
    algorithm = config.algorithm
    if config.cohort.weighting != "uniform":
        raise ConfigError(
            f"weighting: {config.cohort.weighting} tells a user's number of images and gives some users more say; "
            f"{mechanism} needs uniform"
        )
    if algorithm.algorithm_name == "scaffold":
        raise ConfigError(
            f"algorithm_name: scaffold's control variates would reach the server past {mechanism}; use fedavg"
        )
    if algorithm.algorithm_name == "central":
        raise ConfigError(f"algorithm_name: central training has no clients for {mechanism} to protect; use fedavg")
    if algorithm.algorithm_name == "adafedprox" and not algorithm.adafedprox_metric_name.startswith("val/"):
        raise ConfigError(
            f"adafedprox_metric_name: {algorithm.adafedprox_metric_name} is measured on training users without noise "
            f"and would steer the model past {mechanism}; use a metric of val, such as val/macro_loss"
        )
