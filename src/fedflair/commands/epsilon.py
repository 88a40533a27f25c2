"""``fedflair epsilon``: what a noise multiplier costs, or what an epsilon takes, without a run."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedflair.config.parsing import as_usage_errors
from fedflair.errors import ConfigError
from fedflair.privacy.accounting.events import AskedAccountant
from fedflair.privacy.accounting.further import further, rows_of
from fedflair.privacy.accounting.plot import draw, draw_curve
from fedflair.privacy.accounting.question import (
    AskedNeighbouring,
    CohortSampling,
    NamedMechanism,
    answer_to,
    make_question,
    over_rounds,
)
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.accounting.trade_off import trade_off
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
    cohort_sampling: CohortSampling = "poisson",
    min_separation: int | None = None,
    neighbouring: AskedNeighbouring | None = None,
    deltas: str | None = None,
    group_size: int | None = None,
    runs: int | None = None,
    selected_from: float | None = None,
    table: bool = False,
    plot: Path | None = None,
    curve: Path | None = None,
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
        accountant: Composition by privacy loss distributions or by Renyi divergence; auto is pld where it has a bound,
            monte_carlo for b_min_separation cohorts, else rdp.
        cohort_sampling: Cohorts by independent coin flips, of a fixed size without replacement, all clients in turn
            (rotating), which gains nothing from sampling, or by coins of those who were in none of the last
            min_separation - 1 cohorts (b_min_separation, which takes up to a minute or two).
        min_separation: Rounds between two cohorts of one client (banded_matrix_factorization, rotating); if not given,
            as many as rotating cohorts keep, population // cohort_size.
        neighbouring: What one client's privacy means; if not given, zero_out (its contribution becomes zero, the number
            of clients is public; add_remove is another name for it with poisson), and replace_one for fixed.

    What is shown:
        deltas: Also show epsilon at these deltas: 1e-5,1e-6.
        group_size: Also show epsilon for as many clients together.
        runs: Also show epsilon of as many such runs together, as a sweep has them.
        selected_from: Also show epsilon of the best run alone, of a secret geometric number of runs with this mean.
        table: Also show epsilon after fewer rounds.
        plot: Also draw epsilon against rounds and noise against cohort size into this PNG.
        curve: Also write the trade-off curve, every error of the first kind against the least of the second, into a CSV
            and a PNG of this name.
        json_: Print JSON.
    """
    with as_usage_errors():
        question = make_question(
            mechanism=mechanism,
            rounds=rounds,
            delta=delta,
            cohort_sampling=cohort_sampling,
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
    with as_usage_errors():
        facts |= further(
            question,
            answer.noise_multiplier,
            deltas=_numbers(deltas),
            group_size=group_size,
            runs=runs,
            selected_from=selected_from,
            drawn_from=None if cohort_size is None or population is None else (cohort_size, population),
        )
    if table:
        facts["table"] = over_rounds(question, answer.noise_multiplier)
    if plot is not None:
        draw(question, answer.noise_multiplier, cohort_size, plot)
    if curve is not None:
        found = trade_off(question.event(answer.noise_multiplier), delta)
        draw_curve(found, math.inf if answer.epsilon is None else answer.epsilon, delta, curve)
    say(dumps(facts, indent=2) if json_ else _text(facts))


def _numbers(text: str | None) -> list[float]:
    """The numbers in ``1e-5,1e-6``. Raises ConfigError for other words."""
    try:
        return [float(word) for word in text.split(",")] if text is not None else []
    except ValueError as error:
        raise ConfigError(f"deltas: {text!r} is not a list of numbers; write 1e-5,1e-6") from error


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
    if answer["sampling"] == "rotating":
        most = math.ceil(answer["rounds"] / answer["min_separation"])
        rows.append(("participations", f"at most {most:,} of one client, none hidden by a draw"))
    rows += rows_of(answer)
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
