"""``fedflair audit``: what the privacy path really gives, measured with canary clients."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

from fedflair.audit.measure import AuditedMechanism, AuditResult, audit_options
from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.contract import PrivacyOptions
from fedflair.runs.json_text import dumps
from fedflair.system.terminal import say


def audit(
    *,
    central_privacy_mechanism: AuditedMechanism = "gaussian_moments_accountant",
    central_epsilon: float = 2.0,
    central_delta: float = 1e-5,
    central_privacy_clipping_bound: float = 0.1,
    rounds: int = 20,
    sampling_rate: float = 0.5,
    num_canaries: int = 2000,
    min_separation: int | None = None,
    adaptive_clipping: bool = False,
    seed: int | None = None,
    json_: bool = False,
) -> None:
    """Runs sampler, clipping and noise with canary clients and compares what they give away with the accounted epsilon.

    Args:
        central_privacy_mechanism: The mechanism to audit.
        central_epsilon: Budget, as for fedflair train.
        central_delta: Failure probability, as for fedflair train.
        central_privacy_clipping_bound: Bound on the norm of an update.
        rounds: Number of rounds to run.
        sampling_rate: Probability that a client is in a round's cohort.
        num_canaries: Clients that are in or out by a coin; more of them see more.
        min_separation: Rounds between two cohorts of one client (banded_matrix_factorization).
        adaptive_clipping: Let the clipping bound follow the norms.
        seed: Makes the audit repeatable; from the operating system if not given.
        json_: Print JSON.
    """
    options = PrivacyOptions(
        mechanism=central_privacy_mechanism,
        epsilon=central_epsilon,
        delta=central_delta,
        clipping_bound=central_privacy_clipping_bound,
        min_separation=min_separation,
        adaptive_clipping=adaptive_clipping,
    )
    found = audit_options(options, rounds, sampling_rate, num_canaries, secrets.randbits(128) if seed is None else seed)
    say(dumps(asdict(found), indent=2) if json_ else _text(found))
    if found.findings:
        raise PrivacyError(f"audit: flagged: {found.findings[0]}; do not trust this path's epsilon")


def _text(found: AuditResult) -> str:
    facts: dict[str, Any] = {
        "accounted epsilon": f"{show(found.accounted)} at delta {found.delta:g}",
        "estimated epsilon": f"{found.estimate:.4g} (two normal distributions; no bound)",
        "lower bound": f"{found.lower_bound:.4g} (95 % confidence, one run, {found.num_canaries} canaries)",
        "rounds": found.num_rounds,
        "verdict": "nothing is wrong" if not found.findings else "; ".join(found.findings),
    }
    return "\n".join(f"{name:<19}{value}" for name, value in facts.items())
