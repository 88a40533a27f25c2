"""``fedflair epsilon``: what a noise multiplier costs, or what an epsilon takes, without a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fedflair.config.parsing import as_usage_errors
from fedflair.privacy.accounting.accountants import AskedAccountant
from fedflair.privacy.accounting.plot import draw
from fedflair.privacy.accounting.question import (
    AskedNeighbouring,
    NamedMechanism,
    answer_to,
    make_question,
    over_rounds,
)
from fedflair.privacy.accounting.shown import show
from fedflair.runs.json_text import dumps
from fedflair.system.terminal import say


def epsilon(
    *,
    rounds: int,
    delta: float,
    sampling_rate: float | None = None,
    cohort_size: int | None = None,
    population: int | None = None,
    noise_multiplier: float | None = None,
    epsilon: float | None = None,
    mechanism: NamedMechanism = "gaussian_moments_accountant",
    accountant: AskedAccountant = "auto",
    sampling: Literal["poisson", "fixed"] = "poisson",
    min_separation: int | None = None,
    neighbouring: AskedNeighbouring | None = None,
    table: bool = False,
    plot: Path | None = None,
    json_: bool = False,
) -> None:
    """Computes epsilon from a noise multiplier, or the noise multiplier from an epsilon.

    Args:
        rounds: Number of rounds, each of which releases one noisy sum.
        delta: Failure probability of the guarantee; below 1/population it means something.
        sampling_rate: Probability that a client is in a round's cohort; or give cohort_size and population.
        cohort_size: Clients in a cohort, expected or exact.
        population: Clients that cohorts are drawn from.
        noise_multiplier: Noise on the sum over the clipping bound; gives epsilon.
        epsilon: Budget of all rounds (of one release for gaussian and laplace); gives the noise multiplier.

    What is accounted:
        mechanism: What makes the sums private.
        accountant: Composition by privacy loss distributions or by Renyi divergence; auto is pld where it has a bound.
        sampling: Cohorts by independent coin flips, or of a fixed size without replacement.
        min_separation: Rounds between two cohorts of one client (banded_matrix_factorization).
        neighbouring: What one client's privacy means; if not given, zero_out (its contribution becomes zero, the number
            of clients is public; add_remove is another name for it here) for poisson, and replace_one for fixed.

    What is shown:
        table: Also show epsilon after fewer rounds.
        plot: Also draw epsilon against rounds and noise against cohort size into this PNG.
        json_: Print JSON.
    """
    with as_usage_errors():
        question = make_question(
            mechanism=mechanism,
            rounds=rounds,
            delta=delta,
            sampling=sampling,
            sampling_rate=sampling_rate,
            cohort_size=cohort_size,
            population=population,
            min_separation=min_separation,
            neighbouring=neighbouring,
            accountant=accountant,
            epsilon=epsilon,
            noise_multiplier=noise_multiplier,
        )
    answer = answer_to(question, population)
    facts: dict[str, Any] = {
        **asdict(question),
        "accountant": answer.accountant,
        "epsilon": answer.epsilon,
        "epsilon_per_round": answer.epsilon_per_round,
        "noise_multiplier": answer.noise_multiplier,
        "cohort_size": cohort_size,
        "population": population,
        "neighbours": answer.neighbours,
        "warnings": answer.warnings,
    }
    if table:
        facts["table"] = over_rounds(question, answer.noise_multiplier)
    if plot is not None:
        draw(question, answer.noise_multiplier, cohort_size, plot)
    say(dumps(facts, indent=2) if json_ else _text(facts))


def _text(answer: dict[str, Any]) -> str:
    rows = [
        ("mechanism", answer["mechanism"]),
        ("epsilon", show(answer["epsilon"])),
        ("delta", f"{answer['delta']:g}"),
        ("noise multiplier", f"{answer['noise_multiplier']:.6g}"),
        ("rounds", f"{answer['rounds']:,}"),
        ("sampling", f"{answer['sampling']}, rate {answer['sampling_rate']:.6g}"),
        ("neighbouring", answer["neighbouring"]),
        ("accountant", answer["accountant"]),
    ]
    if answer["epsilon_per_round"] is not None:
        one = show(answer["epsilon_per_round"])
        rows.insert(2, ("epsilon of one", f"{one} (each round alone, with everybody in it)"))
    if answer["min_separation"] > 1:
        rows.append(("min separation", f"{answer['min_separation']} rounds"))
    lines = [f"{name:<18}{value}" for name, value in rows]
    for name, found in answer["neighbours"].items():
        told = "no bound is known"
        if found is not None:
            told = f"epsilon {show(found['epsilon'])}, noise multiplier {found['noise_multiplier']:.6g}"
        lines.append(f"{'if ' + name:<18}{told}")
    lines += [f"note: {warning}" for warning in answer["warnings"]]
    if "table" in answer:
        lines += ["", f"{'rounds':>8}  epsilon"]
        lines += [f"{row['rounds']:>8}  {show(row['epsilon'])}" for row in answer["table"]]
    return "\n".join(lines)
