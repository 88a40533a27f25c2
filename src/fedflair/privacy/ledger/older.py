"""Ledgers of versions 1 and 2, whose first line is bound to nothing: do they agree with themselves?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedflair.errors import DataError
from fedflair.privacy.accounting.accountants import accounted_round, epsilon
from fedflair.privacy.accounting.events import event_of
from fedflair.privacy.accounting.shown import finite
from fedflair.privacy.ledger.agreement import differences, is_number
from fedflair.privacy.ledger.terms import terms_problem

NOTE = (
    "The ledger is of version {version}, which says nothing that binds line 1 to the run's options, to its number of "
    "clients or to its checkpoint: only whether its lines agree with each other was verified."
)


def first_line_problems(terms: Mapping[str, Any]) -> list[str]:
    """A first line whose numbers contradict each other. Raises DataError where one is missing, or is none."""
    if problem := terms_problem(terms):
        raise DataError(f"line 1 {problem}; without it nothing can be verified")
    event, run_event = terms["event"], terms["run_event"]
    separation, cohort = terms["min_separation"], terms["cohort_size"]
    expected = {
        "noise multiplier": (event["noise_multiplier"], terms["noise_multiplier"]),
        "run's noise multiplier": (
            run_event["noise_multiplier"],
            terms["noise_multiplier"] * (cohort / terms["noise_cohort_size"]),
        ),
        "sampling rate": (event["sampling_rate"], separation * terms["noise_cohort_size"] / terms["population"]),
        "sampling": (event["sampling"], terms["sampling"]),
        "number of releases": (event["count"], math.ceil(terms["rounds"] / separation)),
        "noise std": (terms["noise_std"], _noise_std(terms)),
        "neighbouring": (event["neighbouring"], terms["neighbouring"]),
        "run's sampling rate": (run_event["sampling_rate"], terms["run_sampling_rate"]),
        "simulated": (terms["simulated"], event != run_event),
    }
    expected |= {f"run's {name}": (run_event[name], event[name]) for name in ("noise", "count", "sampling")}
    expected["run's neighbouring"] = (run_event["neighbouring"], event["neighbouring"])
    return [
        f"line 1 has {problem}"
        for name, (found, value) in expected.items()
        for problem in differences(found, value, name)
    ]


def round_problems(terms: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines that contradict the first line. Raises DataError where line 1 leads to no epsilon."""
    problems = []
    for index, line in enumerate(rounds):
        fields = {name: line[name] for name in ("epsilon", "run_epsilon", *_EXPECTED) if name in line}
        bound = line.get("clipping_bound")
        if not is_number(bound):
            problems.append(f"line {index + 2} has no clipping_bound that is a number")
            continue
        try:
            expected = epsilons(terms, accounted_round(index + 1, terms["rounds"])) | _expected(terms, bound)
        except OverflowError:
            problems.append(f"line {index + 2} has clipping_bound {bound}, which no bound is")
            continue
        problems += [f"line {index + 2} has {problem}" for problem in differences(fields, expected)]
        cohort = line.get("realised_cohort")
        if type(cohort) is not int or cohort < 0 or (terms["sampling"] == "fixed" and cohort != terms["cohort_size"]):
            problems.append(f"line {index + 2} has realised_cohort {cohort}, which no cohort of its sampling has")
    return problems


def epsilons(terms: Mapping[str, Any], num_rounds: int) -> dict[str, float | None]:
    """After so many rounds, on a grid and rounded up, from line 1 alone; None is infinite.

    Raises DataError where no accountant can make anything of what line 1 says.
    """
    try:
        return _epsilons(terms, accounted_round(num_rounds, terms["rounds"]))
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise DataError(f"line 1 of the ledger leads to no epsilon ({error}); do not trust this run") from error


def _epsilons(terms: Mapping[str, Any], rounds: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, source in (("epsilon", "event"), ("run_epsilon", "run_event")):
        # Within min_separation rounds every client is in at most one cohort: together they are one release.
        event = replace(event_of(terms[source]), count=math.ceil(rounds / terms["min_separation"]))
        found[name] = finite(epsilon(event, terms["delta"], terms["accountant"]))
    return found


_EXPECTED = ("sampling", "expected_cohort", "sensitivity", "noise_std", "clipping_bound")


def _expected(terms: Mapping[str, Any], bound: float) -> dict[str, Any]:
    return {
        "sampling": terms["sampling"],
        "expected_cohort": terms["cohort_size"],
        "sensitivity": bound * (2 if terms["neighbouring"] == "replace_one" else 1),
        "noise_std": terms["noise_std"] / terms["clipping_bound"] * bound,
        "clipping_bound": bound if terms["adaptive_clipping"] else terms["clipping_bound"],
    }


def _noise_std(terms: Mapping[str, Any]) -> float:
    """The noise on the sum at the first bound, from the event of one release of the run."""
    multiplier = float(terms["run_event"]["noise_multiplier"])
    if terms["run_event"]["noise"] == "laplace":
        multiplier *= math.sqrt(2)
    if terms["adaptive_clipping"]:
        # The count of whole updates, of sensitivity 1/2, is released with the sum and takes its share of the budget.
        left = multiplier**-2 - (2 * terms["run_count_noise_std"]) ** -2
        multiplier = left**-0.5 if left > 0 else math.inf
    return multiplier * float(terms["clipping_bound"])
