"""Is a privacy ledger whole, in order, and its epsilon what its first line leads to?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedflair.errors import DataError
from fedflair.privacy.accounting.accountants import accounted_round
from fedflair.privacy.ledger.record import (
    FILE_NAME,
    FORMAT,
    ORIGIN,
    VERSION,
    cumulative_epsilon,
    read_lines,
    seed_commitment,
)
from fedflair.privacy.ledger.terms import terms_problem
from fedflair.privacy.mechanisms.noise import noise_fingerprint
from fedflair.system.json_text import parse_json, read_text

_RELATIVE = 1e-6


@dataclass(frozen=True)
class Verification:
    """What a ledger was found to be.

    num_rounds: rounds it holds.
    epsilon, run_epsilon: computed anew after them, of the deployment and of the run; None is infinite.
    noise_from_seed: whoever reads the configuration knows the noise: nothing is promised by the run.
    artificial_users: an epsilon is one of random groups of images, not of people.
    problems: each one line that names the line of the file; empty where the ledger is sound.
    notes: what is worth knowing and no problem.
    """

    num_rounds: int
    delta: float
    epsilon: float | None
    run_epsilon: float | None
    simulated: bool
    noise_from_seed: bool
    artificial_users: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(run: Path, *, use_cache: bool = False) -> Verification:
    """Reads a run folder's ledger, checkpoint and summary; unless ``use_cache``, every epsilon is computed anew.

    Raises DataError where there is no ledger, or its first line cannot be understood.
    """
    path = run / FILE_NAME
    lines = read_lines(path)
    terms = _first_line(path, lines)
    problems, notes = _terms_problems(terms), []
    checkpoint = _checkpoint_facts(run)
    rounds = lines[1:]
    if rounds and rounds[-1][1] == "cut short":
        rounds.pop()
        notes.append(f"The last line is cut short: the run was killed while it began round {len(rounds)}.")
    problems += _chain_problems(lines[0][0]["hash"], rounds)
    if not problems:
        problems += _content_problems(terms, [line for line, _ in rounds], use_cache)
        problems += _length_problems(run, len(rounds), checkpoint)
    if not problems:
        problems += _seed_problems(terms, [line for line, _ in rounds], checkpoint)
    found = _epsilons(terms, len(rounds), use_cache) if rounds else {}
    return Verification(
        num_rounds=len(rounds),
        delta=terms["delta"],
        epsilon=found.get("epsilon", 0.0),
        run_epsilon=found.get("run_epsilon", 0.0),
        simulated=terms["simulated"],
        noise_from_seed=bool(terms.get("noise_from_seed")),
        artificial_users=bool(terms.get("artificial_users")),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _first_line(path: Path, lines: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
    terms, problem = lines[0] if lines else ({}, "is missing")
    if problem:
        raise DataError(f"{path}: line 1 {problem}; without it nothing can be verified")
    version = terms.get("version")
    if (
        terms.get("format") != FORMAT
        or type(version) is not int
        or version not in (1, VERSION)
        or terms["previous"] != ORIGIN
    ):
        raise DataError(f"{path}: line 1 does not start a ledger that this fedflair reads; upgrade fedflair")
    if problem := terms_problem(terms):
        raise DataError(f"{path}: line 1 {problem}; without it nothing can be verified")
    return terms


def _epsilons(terms: Mapping[str, Any], num_rounds: int, use_cache: bool) -> dict[str, float | None]:
    """Raises DataError where no accountant can make anything of what line 1 says."""
    try:
        return cumulative_epsilon(terms, num_rounds, use_cache=use_cache)
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise DataError(f"line 1 of the ledger leads to no epsilon ({error}); do not trust this run") from error


def _terms_problems(terms: Mapping[str, Any]) -> list[str]:
    """A first line whose numbers contradict each other."""
    event, run_event = terms["event"], terms["run_event"]
    separation, cohort = terms["min_separation"], terms["cohort_size"]
    scale = cohort / terms["noise_cohort_size"]
    expected = {
        "noise multiplier": (event["noise_multiplier"], terms["noise_multiplier"]),
        "run's noise multiplier": (run_event["noise_multiplier"], terms["noise_multiplier"] * scale),
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
        f"line 1 has {name} {found}, which should be {value}"
        for name, (found, value) in expected.items()
        if not _same(found, value)
    ]


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


def _chain_problems(head: str, rounds: list[tuple[dict[str, Any], str]]) -> list[str]:
    """Edited, missing, repeated and reordered lines."""
    problems = []
    for index, (line, problem) in enumerate(rounds):
        where = f"line {index + 2}"
        if problem:
            problems.append(f"{where} {problem}")
        elif line.get("round") != index:
            kind = (
                "is repeated or out of order" if _at_most(line.get("round"), index) else "does not follow: lines miss"
            )
            problems.append(f"{where} {kind} (round {line.get('round')}, expected {index})")
        elif line["previous"] != head:
            problems.append(f"{where} does not follow from the line before (round {index})")
        head = line.get("hash", head)
    return problems


def _content_problems(terms: Mapping[str, Any], rounds: list[dict[str, Any]], use_cache: bool) -> list[str]:
    """Lines that contradict the first line: a ledger rewritten with fitting hashes still has to add up."""
    problems = []
    known: dict[int, dict[str, float | None]] = {}
    fingerprints: dict[str, int] = {}
    for index, line in enumerate(rounds):
        where = f"line {index + 2}"
        try:
            reached = accounted_round(index + 1, terms["rounds"])
            if reached not in known:
                known[reached] = _epsilons(terms, reached, use_cache)
            expected = _expected(terms, line, known[reached])
            generator = (line["generator"]["counter"], str(line["generator"]["fingerprint"]))
            problems += [
                f"{where} has {name} {line[name]}, which should be {value}"
                for name, value in expected.items()
                if not _same(line[name], value)
            ]
        except (KeyError, TypeError, ArithmeticError) as error:
            problems.append(f"{where} lacks a field, or has one that is no number ({type(error).__name__} {error})")
            continue
        if generator[1] in fingerprints:
            problems.append(f"{where} repeats the noise of round {fingerprints[generator[1]]}")
        elif generator[0] != index:
            problems.append(f"{where} has noise of round {generator[0]}, which should be {index}")
        fingerprints[generator[1]] = index
    return problems


def _expected(
    terms: Mapping[str, Any], line: Mapping[str, Any], epsilons: Mapping[str, float | None]
) -> dict[str, Any]:
    bound = line["clipping_bound"]
    expected = {
        **epsilons,
        "sampling": terms["sampling"],
        "expected_cohort": terms["cohort_size"],
        "sensitivity": bound * (2 if terms["neighbouring"] == "replace_one" else 1),
        "noise_std": terms["noise_std"] / terms["clipping_bound"] * bound,
    }
    if not terms["adaptive_clipping"]:
        expected["clipping_bound"] = terms["clipping_bound"]
    if terms["sampling"] == "fixed":
        expected["realised_cohort"] = terms["cohort_size"]
    return expected


def _seed_problems(
    terms: Mapping[str, Any], rounds: list[dict[str, Any]], checkpoint: Mapping[str, Any] | None
) -> list[str]:
    """With the checkpoint's noise seed at hand, every round's generator can be checked."""
    if checkpoint is None or "noise_seed" not in checkpoint:
        return []
    seed = checkpoint["noise_seed"]
    if seed_commitment(seed) != terms["noise_seed_commitment"]:
        return ["line 1 belongs to another noise seed than the run's checkpoint"]
    return [
        f"line {index + 2} was not drawn from the run's noise seed"
        for index, line in enumerate(rounds)
        if line["generator"]["fingerprint"] != noise_fingerprint(seed, index, line["generator"].get("binding", ""))
    ]


def _length_problems(run: Path, num_rounds: int, checkpoint: Mapping[str, Any] | None) -> list[str]:
    """Rounds that something else in the folder knows of."""
    if checkpoint is not None and checkpoint["round"] > num_rounds:
        return [f"ends after {num_rounds} rounds, but the checkpoint has {checkpoint['round']}: lines miss at the end"]
    summary = run / "summary.json"
    if summary.is_file():
        try:
            promised = parse_json(read_text(summary))["rounds"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{summary}: not a run's summary ({type(error).__name__}); put the file back from a copy, or take it "
                "away to have the ledger verified by itself"
            ) from error
        if promised != num_rounds:
            return [f"has {num_rounds} rounds, but the run's summary has {promised}"]
    return []


def _checkpoint_facts(run: Path) -> dict[str, Any] | None:
    """What the last checkpoint says of itself, or None without one; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    path = run / "checkpoints" / "last.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            facts: dict[str, Any] = parse_json(file.metadata()["facts"])
        return facts | {name: int(facts[name]) for name in ("round", "noise_seed") if name == "round" or name in facts}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: damaged checkpoint ({type(error).__name__}); put the file back from a copy, or take it away to "
            "have the ledger verified by itself"
        ) from error


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=_RELATIVE)
    return bool(found == expected)


def _at_most(found: Any, index: int) -> bool:
    return isinstance(found, int) and found <= index
