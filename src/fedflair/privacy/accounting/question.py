"""What a noise multiplier costs, or what an epsilon takes, without a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import SMALLEST_PLD_DELTA, resolve_accountant
from fedflair.privacy.accounting.accountants import epsilon as epsilon_of
from fedflair.privacy.accounting.calibration import calibrate, single_release
from fedflair.privacy.accounting.events import Accountant, AskedAccountant, Neighbouring, PrivacyEvent
from fedflair.privacy.accounting.shown import finite
from fedflair.privacy.toeplitz import rounded_column

NamedMechanism = Literal["gaussian_moments_accountant", "gaussian", "laplace", "banded_matrix_factorization"]
# At a given sampling rate an added or removed client costs what a client that is zeroed out does.
AskedNeighbouring = Literal["zero_out", "add_remove", "replace_one"]
CohortSampling = Literal["poisson", "fixed", "rotating", "b_min_separation"]
_MOST_ROUNDS = 10_000_000
NEIGHBOURS: tuple[Neighbouring, Neighbouring] = ("zero_out", "replace_one")


@dataclass(frozen=True)
class Question:
    """What is asked, checked: exactly one of ``epsilon`` and ``noise_multiplier`` is None.

    sampling_rate: of one cohort. min_separation: rounds in any of which a client is in one cohort at most; 1 but for
        banded_matrix_factorization and for cohorts that rotate.
    """

    mechanism: NamedMechanism
    rounds: int
    delta: float
    sampling: CohortSampling
    sampling_rate: float
    min_separation: int
    neighbouring: Neighbouring
    accountant: AskedAccountant
    epsilon: float | None
    noise_multiplier: float | None

    def event(self, noise_multiplier: float) -> PrivacyEvent:
        """Every ``min_separation`` rounds are one release, in which one of the groups of clients took part.

        Where cohorts rotate, everybody knows which: no draw hides who took part. A client is in one round of each
        release at most, so banded noise, whose columns in these rounds share no row, costs what independent noise does.
        """
        noise: Literal["laplace", "gaussian"] = "laplace" if self.mechanism == "laplace" else "gaussian"
        count, rate = math.ceil(self.rounds / self.min_separation), self.sampling_rate * self.min_separation
        if self.sampling == "rotating":
            return PrivacyEvent(noise, noise_multiplier, count, neighbouring=self.neighbouring)
        if self.sampling == "b_min_separation":
            column = rounded_column(self.rounds, self.min_separation, self.min_separation)
            return PrivacyEvent(
                noise, noise_multiplier, self.rounds, self.sampling, self.sampling_rate, self.neighbouring, column
            )
        return PrivacyEvent(noise, noise_multiplier, count, self.sampling, rate, self.neighbouring)

    def solve(self) -> tuple[float, float]:
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

    def resized(self, factor: float) -> Question | None:
        """The same with cohorts ``factor`` times as large, whose clients are back sooner where they rotate.

        None where such cohorts do not fit.
        """
        rate, separation = self.sampling_rate * factor, self.min_separation
        if self.sampling == "rotating":
            separation = math.floor(separation / factor)
        if separation < 1 or rate * separation > 1 + 1e-12:
            return None
        return replace(self, sampling_rate=rate, min_separation=separation)


@dataclass(frozen=True)
class Answer:
    """What a question comes to.

    epsilon: of all rounds; None is infinite. epsilon_per_round: of one release, for gaussian and laplace.
    accountant: the one that had a bound.
    neighbours: epsilon and noise multiplier for each meaning of neighbours; None where no accountant has a bound.
    warnings: what makes the promise a weak one.
    """

    epsilon: float | None
    epsilon_per_round: float | None
    noise_multiplier: float
    accountant: Accountant
    neighbours: Mapping[Neighbouring, Mapping[str, float | None] | None]
    warnings: Sequence[str]


def make_question(
    *,
    mechanism: NamedMechanism,
    rounds: int,
    delta: float,
    cohort_sampling: CohortSampling,
    sampling_rate: float | None,
    cohort_size: int | None,
    population: int | None,
    min_separation: int | None,
    neighbouring: AskedNeighbouring | None,
    accountant: AskedAccountant,
    epsilon: float | None,
    noise_multiplier: float | None,
) -> Question:
    """Fills in what was not given and refuses (ConfigError, PrivacyError) impossible questions, naming the option."""
    if neighbouring is None:
        neighbouring = "replace_one" if cohort_sampling == "fixed" else "zero_out"
    elif neighbouring == "add_remove" and cohort_sampling == "rotating":
        raise ConfigError(
            "neighbouring: where cohorts rotate, a client added or removed moves everybody's turn, which no bound is "
            "known for; use zero_out"
        )
    rate = _rate(sampling_rate, cohort_size, population)
    most = 1
    if cohort_sampling == "rotating":
        # 1 / (1 / 93) is a little less than 93.
        most = population // cohort_size if population and cohort_size else math.floor(1 / rate * (1 + 1e-12))
    question = Question(
        mechanism=mechanism,
        rounds=rounds,
        delta=delta,
        sampling=cohort_sampling,
        sampling_rate=rate,
        min_separation=most if min_separation is None else min_separation,
        neighbouring="zero_out" if neighbouring == "add_remove" else neighbouring,
        accountant=accountant,
        epsilon=epsilon,
        noise_multiplier=noise_multiplier,
    )
    _check(question)
    _check_separation(question, min_separation, most)
    return question


def answer_to(question: Question, population: int | None = None) -> Answer:
    """What the question comes to. population: clients that cohorts are drawn from, which says what delta is worth.

    Raises PrivacyError where no accountant has a bound.
    """
    found, multiplier = question.solve()
    return Answer(
        epsilon=finite(found),
        epsilon_per_round=question.epsilon if question.mechanism in ("gaussian", "laplace") else None,
        noise_multiplier=multiplier,
        accountant=resolve_accountant(question.event(multiplier), question.accountant, question.delta),
        neighbours={name: _under(question, name) for name in NEIGHBOURS},
        warnings=_warnings(question, multiplier, population),
    )


def _check(question: Question) -> None:
    _require(1 <= question.rounds <= _MOST_ROUNDS, "rounds", question.rounds, f"in 1 .. {_MOST_ROUNDS:,}")
    _require(0 < question.delta < 1, "delta", question.delta, "in (0, 1)")
    if (question.epsilon is None) == (question.noise_multiplier is None):
        raise ConfigError("epsilon: give either --epsilon or --noise_multiplier; the other one is computed")
    for name in ("epsilon", "noise_multiplier"):
        value = getattr(question, name)
        _require(value is None or (value > 0 and math.isfinite(value)), name, value, "a finite number above 0")


def _check_separation(question: Question, min_separation: int | None, most: int) -> None:
    """min_separation: as it was given. most: that there can be, where cohorts rotate."""
    _require(question.min_separation >= 1, "min_separation", question.min_separation, "at least 1")
    if question.sampling == "rotating":
        if question.min_separation > most:
            raise PrivacyError(
                f"min_separation: {question.min_separation} is more than rotating cohorts of "
                f"{question.sampling_rate:.4g} of all clients keep; at most {most} fits"
            )
        return
    banded = question.mechanism == "banded_matrix_factorization"
    if banded and min_separation is None:
        raise ConfigError("min_separation: banded_matrix_factorization needs it; give --min_separation")
    if not banded and min_separation is not None:
        raise ConfigError(
            f"min_separation: {question.mechanism} has none; leave it out, use banded_matrix_factorization, or "
            "cohort_sampling rotating"
        )
    if banded and question.sampling == "fixed":
        raise ConfigError(
            "cohort_sampling: banded_matrix_factorization has no accountant for fixed cohorts; use poisson, rotating "
            "or b_min_separation"
        )
    if question.sampling == "b_min_separation" and (not banded or question.min_separation == 1):
        raise ConfigError(
            "cohort_sampling: b_min_separation is accounted for banded_matrix_factorization, with a min_separation of "
            "2 or more; use those, or poisson"
        )
    if question.sampling_rate * question.min_separation > 1 + 1e-12:
        raise PrivacyError(
            f"min_separation: {question.min_separation} groups of clients are each too small for a cohort, as "
            f"min_separation * sampling rate = {question.sampling_rate * question.min_separation:.4g} > 1; lower either"
        )


def over_rounds(question: Question, noise_multiplier: float, points: int = 10) -> list[dict[str, float | None]]:
    """Epsilon after 1, 2, 5, 10, 20, ... rounds, up to all of them."""
    marks = [m * 10**e for e in range(10) for m in (1, 2, 5) if m * 10**e < question.rounds]
    rows: list[dict[str, float | None]] = []
    whole = question.event(noise_multiplier)
    of_all = epsilon_of(whole, question.delta, question.accountant)
    for rounds in marks[-(points - 1) :]:
        event = replace(question, rounds=rounds).event(noise_multiplier)
        asked = question.accountant
        if whole.column:
            # With the noise of the whole run; a second is enough for each, as what all rounds cost bounds them.
            event, asked = replace(whole, count=rounds), "rdp"
        rows.append({"rounds": rounds, "epsilon": finite(min(of_all, epsilon_of(event, question.delta, asked)))})
    return [*rows, {"rounds": question.rounds, "epsilon": finite(of_all)}]


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
        found, multiplier = replace(question, neighbouring=neighbouring).solve()
    except PrivacyError:
        return None
    return {"epsilon": finite(found), "noise_multiplier": multiplier}


def _warnings(question: Question, noise_multiplier: float, population: int | None) -> list[str]:
    found, delta = [], question.delta
    if population is not None and delta >= 1 / population:
        found.append(f"delta {delta:g} is not below 1/population = {1 / population:.3g}: a weak promise")
    used = resolve_accountant(question.event(noise_multiplier), question.accountant, delta)
    if question.accountant == "auto" and used == "rdp" and delta < SMALLEST_PLD_DELTA:
        found.append(f"below delta {SMALLEST_PLD_DELTA:g} pld is not exact: accounted by rdp")
    return found


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")
