"""``fedflair audit``: what the privacy path of a training really gives, measured with canary clients."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from fedflair.audit.options import COHORT
from fedflair.config.groups.central_privacy import CentralMechanismOptions
from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.groups.local_privacy import LocalMechanismOptions
from fedflair.config.options import read_given
from fedflair.config.parsing import make_parser
from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import show
from fedflair.runs.json_text import dumps
from fedflair.system.terminal import say

if TYPE_CHECKING:
    from fedflair.audit.measure import AuditResult

_ESTIMATE = (
    "(of what is accounted, at the ratio of contributions to noise that was measured: every other honest path's lies\n"
    f"{'':<19}above the accounted epsilon; one whose whole range does is flagged)"
)


def audit(arguments: Sequence[str]) -> None:
    """Runs sampler, clipping and noise with canary clients and compares what they give away with the accounted epsilon.

    Raises PrivacyError where something is wrong.
    """
    read = read_given(parser(), arguments)
    given = read.typed
    for note in read.notes:
        say(note, stderr=True)
    as_json, seed = bool(given.pop("json", False)), given.pop("seed", None)
    sizes = {name: given.pop(name, None) for name in ("rounds", "sampling_rate", "num_canaries")}
    # What measures takes two seconds to load, which a mistyped option need not wait for.
    from fedflair.audit.asked import audited, config_of

    found = audited(config_of(read), given, sizes, secrets.randbits(128) if seed is None else seed)
    say(dumps(asdict(found), indent=2) if as_json else _text(found))
    if found.findings:
        raise PrivacyError(f"audit: flagged: {found.findings[0]}; do not trust this path's epsilon")


def parser() -> ArgumentParser:
    """The parser of the command's words."""
    made = make_parser(
        "audit",
        "Put canary clients through the privacy path of a training and compare what it gives away with the accounted "
        "epsilon. Mechanism and cohorts are those of --args_config (a run's config.yaml, say) and of the command line, "
        "which wins; how many rounds and clients there are is the audit's own.",
        "fedflair audit [--args_config FILE] [--option value ...]",
    )
    made.add_argument("--args_config", type=str, help="YAML file, or the name of a shipped configuration.")
    made.add_argument("--rounds", type=int, help="Rounds to run; 20, or 5 of a local mechanism, if not given.")
    made.add_argument(
        "--sampling_rate",
        type=float,
        help="Probability that a client is in a round's cohort; 0.5 if not given, or less where groups of clients, or "
        "a simulated cohort, need it.",
    )
    made.add_argument("--num_canaries", type=int, help="Clients with a coin each, 2000 if not given; more see more.")
    made.add_argument("--seed", type=int, help="Makes the audit repeatable; from the operating system if not given.")
    made.add_argument("--json", action="store_true", help="Print JSON.")
    others = {option.name for option in fields(CohortOptions)} - {*COHORT}
    made.add_argument("--plugins", type=tuple[str, ...], help="Modules to import, which add mechanisms; repeatable.")
    made.add_class_arguments(CohortOptions, skip=others)
    made.add_class_arguments(CentralMechanismOptions)
    made.add_class_arguments(LocalMechanismOptions)
    return made


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
