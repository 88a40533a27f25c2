"""``fedflair epsilon``: what a noise multiplier costs, or what an epsilon takes, without a run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import (
    Accountant,
    Neighbouring,
    PrivacyEvent,
    calibrate,
    resolve_accountant,
    single_release,
)
from fedflair.privacy.accounting.accountants import epsilon as epsilon_of
from fedflair.privacy.accounting.deployment import show

NamedMechanism = Literal["gaussian_moments_accountant", "gaussian", "laplace", "banded_matrix_factorization"]
NEIGHBOURS: tuple[Neighbouring, Neighbouring] = ("add_remove", "replace_one")


@dataclass(frozen=True)
class Question:
    """What is asked, checked: exactly one of ``epsilon`` and ``noise_multiplier`` is None.

    sampling_rate: of one cohort. min_separation: 1 but for banded_matrix_factorization.
    """

    mechanism: NamedMechanism
    rounds: int
    delta: float
    sampling: Literal["poisson", "fixed"]
    sampling_rate: float
    min_separation: int
    neighbouring: Neighbouring
    accountant: Accountant
    epsilon: float | None
    noise_multiplier: float | None

    def event(self, noise_multiplier: float) -> PrivacyEvent:
        """Every ``min_separation`` rounds are one release, in which one of the groups of clients took part."""
        noise: Literal["laplace", "gaussian"] = "laplace" if self.mechanism == "laplace" else "gaussian"
        count, rate = math.ceil(self.rounds / self.min_separation), self.sampling_rate * self.min_separation
        return PrivacyEvent(noise, noise_multiplier, count, self.sampling, rate, self.neighbouring)

    def answer(self) -> tuple[float, float]:
        """(epsilon of all rounds, noise multiplier). Raises PrivacyError where no accountant has a bound."""
        multiplier = self.noise_multiplier
        if multiplier is None:
            budget = float(self.epsilon or 0)
            if self.mechanism in ("gaussian", "laplace"):
                noise = self.event(0.0).noise
                multiplier = single_release(noise, budget, self.delta, self.neighbouring)
            else:
                multiplier = calibrate(self.event(0.0), budget, self.delta, self.accountant)
        return epsilon_of(self.event(multiplier), self.delta, self.accountant), multiplier


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
    accountant: Accountant = "pld",
    sampling: Literal["poisson", "fixed"] = "poisson",
    min_separation: int | None = None,
    neighbouring: Neighbouring | None = None,
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
        mechanism: What makes the sums private.
        accountant: Composition by privacy loss distributions or by Renyi divergence.
        sampling: Cohorts by independent coin flips, or of a fixed size without replacement.
        min_separation: Rounds between two cohorts of one client (banded_matrix_factorization).
        neighbouring: What one client's privacy means; add_remove for poisson and replace_one for fixed if not given.
        table: Also show epsilon after fewer rounds.
        plot: Also draw epsilon against rounds and noise against cohort size into this PNG.
        json_: Print JSON.
    """
    rate = _rate(sampling_rate, cohort_size, population)
    question = Question(
        mechanism=mechanism,
        rounds=rounds,
        delta=delta,
        sampling=sampling,
        sampling_rate=rate,
        min_separation=min_separation or 1,
        neighbouring=neighbouring or ("replace_one" if sampling == "fixed" else "add_remove"),
        accountant=accountant,
        epsilon=epsilon,
        noise_multiplier=noise_multiplier,
    )
    check(question, min_separation)
    found, multiplier = question.answer()
    answer: dict[str, Any] = {
        **asdict(question),
        "accountant": resolve_accountant(question.event(multiplier), accountant),
        "epsilon": _finite(found),
        "epsilon_per_round": epsilon if mechanism in ("gaussian", "laplace") else None,
        "noise_multiplier": multiplier,
        "cohort_size": cohort_size,
        "population": population,
        "neighbours": {name: _under(question, name) for name in NEIGHBOURS},
        "warnings": _warnings(delta, population),
    }
    if table:
        answer["table"] = over_rounds(question, multiplier)
    if plot is not None:
        from fedflair.privacy.accounting.epsilon_plot import draw

        draw(question, multiplier, cohort_size, plot)
    print(json.dumps(answer, indent=2) if json_ else _text(answer))


def check(question: Question, min_separation: int | None) -> None:
    """Refuses (ConfigError, PrivacyError) impossible questions, naming the option."""
    _require(question.rounds >= 1, "rounds", question.rounds, "at least 1")
    _require(0 < question.delta < 1, "delta", question.delta, "in (0, 1)")
    if (question.epsilon is None) == (question.noise_multiplier is None):
        raise ConfigError("epsilon: give either --epsilon or --noise_multiplier; the other one is computed")
    for name in ("epsilon", "noise_multiplier"):
        value = getattr(question, name)
        _require(value is None or (value > 0 and math.isfinite(value)), name, value, "a finite number above 0")
    banded = question.mechanism == "banded_matrix_factorization"
    if banded and min_separation is None:
        raise ConfigError("min_separation: banded_matrix_factorization needs it; give --min_separation")
    if not banded and min_separation is not None:
        raise ConfigError(
            f"min_separation: {question.mechanism} has none; leave it out, or use banded_matrix_factorization"
        )
    _require(question.min_separation >= 1, "min_separation", question.min_separation, "at least 1")
    if banded and question.sampling != "poisson":
        raise ConfigError("sampling: banded_matrix_factorization is accounted for poisson cohorts only; use poisson")
    if question.sampling_rate * question.min_separation > 1 + 1e-12:
        raise PrivacyError(
            f"min_separation: {question.min_separation} groups of clients are each too small for a cohort, as "
            f"min_separation * sampling rate = {question.sampling_rate * question.min_separation:.4g} > 1; lower either"
        )


def over_rounds(question: Question, noise_multiplier: float, points: int = 10) -> list[dict[str, float | None]]:
    """Epsilon after 1, 2, 5, 10, 20, ... rounds, up to all of them."""
    marks = [m * 10**e for e in range(10) for m in (1, 2, 5) if m * 10**e < question.rounds]
    rows: list[dict[str, float | None]] = []
    for rounds in [*marks[-(points - 1) :], question.rounds]:
        event = replace(question, rounds=rounds).event(noise_multiplier)
        rows.append({"rounds": rounds, "epsilon": _finite(epsilon_of(event, question.delta, question.accountant))})
    return rows


def _rate(sampling_rate: float | None, cohort_size: int | None, population: int | None) -> float:
    if (sampling_rate is None) == (cohort_size is None or population is None) or (
        sampling_rate is not None and (cohort_size is not None or population is not None)
    ):
        raise ConfigError("sampling_rate: give either --sampling_rate, or both --cohort_size and --population")
    if sampling_rate is not None:
        _require(0 < sampling_rate <= 1, "sampling_rate", sampling_rate, "in (0, 1]")
        return sampling_rate
    cohort, everybody = int(cohort_size or 0), int(population or 0)
    _require(everybody >= 1, "population", everybody, "at least 1")
    _require(1 <= cohort <= everybody, "cohort_size", cohort, f"in 1 .. population ({everybody})")
    return cohort / everybody


def _under(question: Question, neighbouring: Neighbouring) -> dict[str, float | None] | None:
    """The same question for one meaning of neighbours; None where no accountant has a bound."""
    try:
        found, multiplier = replace(question, neighbouring=neighbouring).answer()
    except PrivacyError:
        return None
    return {"epsilon": _finite(found), "noise_multiplier": multiplier}


def _warnings(delta: float, population: int | None) -> list[str]:
    if population is not None and delta >= 1 / population:
        return [f"delta {delta:g} is not below 1/population = {1 / population:.3g}: a weak promise"]
    return []


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
        rows.insert(2, ("epsilon of one", f"{answer['epsilon_per_round']:g} (each round alone, with everybody in it)"))
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")
