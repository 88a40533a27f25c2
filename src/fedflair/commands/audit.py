"""``fedflair audit``: what the privacy path of a training really gives, measured with canary clients."""

from __future__ import annotations

import secrets
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from jsonargparse import ArgumentParser

from fedflair.audit.measure import AuditResult, Sizes, audit_central, audit_local
from fedflair.config.groups.central_privacy import CentralMechanismOptions
from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.groups.local_privacy import LocalMechanismOptions
from fedflair.config.names import OWN_NAMES
from fedflair.config.options import Given, build_config, read_given
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, PrivacyError
from fedflair.federated.plugins import load_plugins
from fedflair.federated.privacy_options import local_privacy_options, privacy_options
from fedflair.privacy.accounting.shown import show
from fedflair.runs.json_text import dumps
from fedflair.system.terminal import say

# Of the cohort, what changes who is in a sum, or what of an update reaches it.
_COHORT = ("cohort_size", "cohort_sampling", "dropout_rate", "compression", "top_k_fraction")
_CENTRAL = tuple(option.name for option in fields(CentralMechanismOptions))
_ADAPTIVE = tuple(name for name in _CENTRAL if name.startswith("adaptive_clipping_"))
_LOCAL = tuple(option.name for option in fields(LocalMechanismOptions))
_ESTIMATE = (
    "(of what is accounted, at the ratio of contributions to noise that was measured: every other honest path's lies\n"
    f"{'':<19}above the accounted epsilon; one whose whole range does is flagged)"
)
# Of the audit and not of a training. A training's seed is not the audit's.
_OWN = ("json", "seed", "rounds", "sampling_rate", "num_canaries")
_MECHANISMS = ("central_privacy_mechanism", "local_privacy_mechanism")


def audit(arguments: Sequence[str]) -> None:
    """Runs sampler, clipping and noise with canary clients and compares what they give away with the accounted epsilon.

    Raises PrivacyError where something is wrong.
    """
    read = read_given(_parser(), arguments)
    given = read.typed
    for note in read.notes:
        say(note, stderr=True)
    as_json, seed = bool(given.pop("json", False)), given.pop("seed", None)
    sizes = {name: given.pop(name, None) for name in ("rounds", "sampling_rate", "num_canaries")}
    found = _audited(_config(read), given, sizes, secrets.randbits(128) if seed is None else seed)
    say(dumps(asdict(found), indent=2) if as_json else _text(found))
    if found.findings:
        raise PrivacyError(f"audit: flagged: {found.findings[0]}; do not trust this path's epsilon")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="fedflair audit",
        usage="fedflair audit [--args_config FILE] [--option value ...]",
        description=(
            "Put canary clients through the privacy path of a training and compare what it gives away with the "
            "accounted epsilon. Mechanism and cohorts are those of --args_config (a run's config.yaml, say) and of "
            "the command line, which wins; how many rounds and clients there are is the audit's own."
        ),
        exit_on_error=False,
    )
    parser.add_argument("--args_config", type=str, help="YAML file, or the name of a shipped configuration.")
    parser.add_argument("--rounds", type=int, help="Rounds to run; 20, or 5 of a local mechanism, if not given.")
    parser.add_argument(
        "--sampling_rate",
        type=float,
        help="Probability that a client is in a round's cohort; 0.5 if not given, or less where groups of clients, or "
        "a simulated cohort, need it.",
    )
    parser.add_argument("--num_canaries", type=int, help="Clients with a coin each, 2000 if not given; more see more.")
    parser.add_argument("--seed", type=int, help="Makes the audit repeatable; from the operating system if not given.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    others = {option.name for option in fields(CohortOptions)} - {*_COHORT}
    parser.add_argument("--plugins", type=tuple[str, ...], help="Modules to import, which add mechanisms; repeatable.")
    parser.add_class_arguments(CohortOptions, skip=others)
    parser.add_class_arguments(CentralMechanismOptions)
    parser.add_class_arguments(LocalMechanismOptions)
    return parser


def _config(given: Given) -> TrainConfig:
    """What a training of these options would be; the mechanism audited by default is gaussian_moments_accountant."""
    options = {name: value for name, value in given.options.items() if name not in _OWN}
    if given.source is None and not any(name in options for name in _MECHANISMS):
        options["central_privacy_mechanism"] = "gaussian_moments_accountant"
    config = build_config(options, given.where)
    load_plugins(config)
    return config


def _audited(config: TrainConfig, given: Mapping[str, Any], sizes: Mapping[str, Any], seed: int) -> AuditResult:
    central = config.central_privacy.central_privacy_mechanism
    local = config.local_privacy.local_privacy_mechanism
    if local == "none":
        _refuse(given, _LOCAL, "local_privacy_mechanism is none")
        return _central(config, given, sizes, seed)
    if central != "none":
        raise ConfigError(
            f"local_privacy_mechanism: {local} and {central} each keep a promise of their own; audit one at a time, "
            "with --local_privacy_mechanism none or --central_privacy_mechanism none"
        )
    _refuse(given, _CENTRAL, "central_privacy_mechanism is none")
    asked = {*given, *(name for name, value in sizes.items() if value is not None)}
    _refuse(asked, (*_COHORT, "sampling_rate"), "the server gets each client's own update, whoever else is asked")
    return audit_local(local_privacy_options(config), _sizes(sizes, rate=1.0, num_rounds=5), seed)


def _central(config: TrainConfig, given: Mapping[str, Any], sizes: Mapping[str, Any], seed: int) -> AuditResult:
    if config.central_privacy.noise_cohort_size is None and config.central_privacy.population is None:
        _refuse(given, ("cohort_size",), "cohorts are sampling_rate of the audit's clients")
    mechanism = config.central_privacy.central_privacy_mechanism
    separated = config.sampling == "rotating" or mechanism in ("banded_matrix_factorization", "auto")
    if mechanism in OWN_NAMES["central_privacy_mechanism"] and not separated:
        _refuse(given, ("min_separation",), f"{mechanism} does not enforce any")
    if not config.central_privacy.adaptive_clipping:
        _refuse(given, _ADAPTIVE, "adaptive_clipping is off")
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
            raise ConfigError(f"{name}: has no effect on this audit ({why}); leave it out")


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
    mechanism = options.central_privacy_mechanism
    separated = config.sampling == "rotating" or mechanism in ("banded_matrix_factorization", "auto")
    return min(0.5, simulated / ((options.min_separation or 1) if separated else 1))


def _text(found: AuditResult) -> str:
    low, high = (_number(value) for value in found.estimate_range)
    facts: dict[str, Any] = {
        "accounted epsilon": f"{show(found.accounted)} at delta {found.delta:g}",
        "estimated epsilon": f"{_number(found.estimate)}, between {low} and {high} with 99.4 % confidence",
        "": _ESTIMATE,
        "at least": f"{_number(found.conditional_lower_bound)} with 99.7 % confidence, if no more than that is wrong",
        "at least, surely": f"{_number(found.lower_bound)} with 99.7 % confidence, whatever the path does",
        "size": f"{found.num_rounds} rounds, {found.num_canaries} canaries",
        "verdict": "nothing is wrong" if not found.findings else "; ".join(found.findings),
    }
    return "\n".join(f"{name:<19}{value}" for name, value in facts.items())


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.4g}"
