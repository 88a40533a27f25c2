"""From what ``fedflair audit`` is asked to the audit: which path, of what size, and what would make no difference."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fedflair.audit.measure import AuditResult, Sizes, audit_central, audit_local
from fedflair.audit.options import COHORT, OWN
from fedflair.config.groups.central_privacy import CentralMechanismOptions
from fedflair.config.groups.local_privacy import LocalMechanismOptions
from fedflair.config.names import OWN_NAMES
from fedflair.config.options import Given, build_config
from fedflair.config.parsing import as_usage_errors
from fedflair.config.train_config import TrainConfig
from fedflair.errors import UsageError
from fedflair.federated.plugins import load_plugins
from fedflair.federated.privacy_options import local_privacy_options, privacy_options

_CENTRAL = tuple(option.name for option in fields(CentralMechanismOptions))
_ADAPTIVE = ("clipping_groups", *(name for name in _CENTRAL if name.startswith("adaptive_clipping_")))
_BOUNDS = ("private_metrics_loss_bound", "private_metrics_images_bound")
_LOCAL = tuple(option.name for option in fields(LocalMechanismOptions))
_MECHANISMS = ("central_privacy_mechanism", "local_privacy_mechanism")


def config_of(given: Given) -> TrainConfig:
    """What a training of these options would be; the mechanism audited by default is gaussian_moments_accountant."""
    options = {name: value for name, value in given.options.items() if name not in OWN}
    if given.source is None and not any(name in options for name in _MECHANISMS):
        options["central_privacy_mechanism"] = "gaussian_moments_accountant"
    with as_usage_errors():
        config = build_config(options, given.where)
    load_plugins(config)
    return config


def audited(config: TrainConfig, given: Mapping[str, Any], sizes: Mapping[str, Any], seed: int) -> AuditResult:
    """What the privacy path of the configuration gives away. given: what was typed; sizes: the audit's own, or None.

    Raises UsageError, naming it, for what was typed and would change nothing.
    """
    central = config.central_privacy.central_privacy_mechanism
    local = config.local_privacy.local_privacy_mechanism
    if local == "none":
        _refuse(given, _LOCAL, "local_privacy_mechanism is none")
        return _central(config, given, sizes, seed)
    if central != "none":
        raise UsageError(
            f"local_privacy_mechanism: {local} and {central} each keep a promise of their own; audit one at a time, "
            "with --local_privacy_mechanism none or --central_privacy_mechanism none"
        )
    _refuse(given, _CENTRAL, "central_privacy_mechanism is none")
    asked = {*given, *(name for name, value in sizes.items() if value is not None)}
    _refuse(asked, (*COHORT, "sampling_rate"), "the server gets each client's own update, whoever else is asked")
    return audit_local(local_privacy_options(config), _sizes(sizes, rate=1.0, num_rounds=5), seed)


def _central(config: TrainConfig, given: Mapping[str, Any], sizes: Mapping[str, Any], seed: int) -> AuditResult:
    if config.central_privacy.noise_cohort_size is None and config.central_privacy.population is None:
        _refuse(given, ("cohort_size",), "cohorts are sampling_rate of the audit's clients")
    mechanism = config.central_privacy.central_privacy_mechanism
    if mechanism in OWN_NAMES["central_privacy_mechanism"] and not _is_separated(config):
        _refuse(given, ("min_separation",), f"{mechanism} does not enforce any")
    if not config.central_privacy.adaptive_clipping:
        _refuse(given, _ADAPTIVE, "adaptive_clipping is off")
    _refuse(given, _BOUNDS, "canaries send their updates alone, and what is asked of metrics is their noise")
    if config.cohort.compression != "top_k":
        _refuse(given, ("top_k_fraction",), f"compression is {config.cohort.compression}")
    return audit_central(
        privacy_options(config),
        _sizes(sizes, rate=_rate(config), num_rounds=20),
        seed,
        sampling=config.sampling,
        cohort=config.cohort,
    )


def _refuse(given: Container[str], names: Sequence[str], why: str) -> None:
    """Refuses what was given on the command line and would change nothing."""
    for name in names:
        if name in given and name not in _MECHANISMS:
            raise UsageError(f"{name}: has no effect on this audit ({why}); leave it out")


def _sizes(sizes: Mapping[str, Any], *, rate: float, num_rounds: int) -> Sizes:
    """The sizes that were asked for; where none was, these."""
    chosen: dict[str, Any] = {"rounds": num_rounds, "sampling_rate": rate, "num_canaries": 2000}
    chosen |= {name: value for name, value in sizes.items() if value is not None}
    return Sizes(chosen["rounds"], chosen["sampling_rate"], chosen["num_canaries"])


def _rate(config: TrainConfig) -> float:
    """Half of the clients, or as many as groups that take turns, and a simulated cohort, leave room for."""
    options = config.central_privacy
    simulated = 1.0
    if options.population is None and options.noise_cohort_size is not None:
        simulated = config.cohort.cohort_size / options.noise_cohort_size
    return min(0.5, simulated / ((options.min_separation or 1) if _is_separated(config) else 1))


def _is_separated(config: TrainConfig) -> bool:
    """Whether nobody is in two cohorts within ``min_separation`` rounds."""
    mechanism = config.central_privacy.central_privacy_mechanism
    return config.sampling == "rotating" or mechanism in ("banded_matrix_factorization", "auto")
