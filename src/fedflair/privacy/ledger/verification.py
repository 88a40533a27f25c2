"""Is a privacy ledger whole, in order, and what its run's mechanism leads to?

What the mechanism, the noise seed and the cohorts are is for whoever knows the run's folder to say
(``training/verification.py``): nothing here is computed from what the ledger says of itself, but for a bound that
followed the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch

from fedflair.privacy.contract import Mechanism, MechanismState
from fedflair.privacy.ledger.agreement import differences, is_number, shown
from fedflair.privacy.ledger.anchor import Anchor
from fedflair.privacy.ledger.lines import Read, told
from fedflair.privacy.ledger.record import (
    GROUP_BOUNDS,
    METRICS,
    cumulative_epsilon,
    reached_round,
    released,
    with_noise,
)
from fedflair.privacy.mechanisms.noise import noise_fingerprint

BOUND_NOTE = "Clipping bounds after the first follow users' updates: that they moved as they should is not verified."
_BINDING = re.compile("[0-9a-f]{32}")
_GENERATOR = {"counter", "binding", "fingerprint"}


def chain_problems(head: str, rounds: Sequence[Read]) -> list[str]:
    """Edited, missing, repeated and reordered lines. head: hash of line 1."""
    problems = []
    for index, (line, problem) in enumerate(rounds):
        where, round_ = f"line {index + 2}", line.get("round")
        if problem:
            problems.append(f"{where} {problem}")
        elif type(round_) is not int or round_ != index:
            repeated = is_number(round_) and round_ <= index
            kind = "is repeated or out of order" if repeated else "does not follow: lines miss"
            problems.append(f"{where} {kind} (round {shown(round_)}, expected {index})")
        elif line["previous"] != head:
            problems.append(f"{where} does not follow from the line before (round {index})")
        head = line.get("hash", head)
    return problems


def first_line_problems(first: Mapping[str, Any], terms: Mapping[str, Any]) -> list[str]:
    """What line 1 says otherwise than it should."""
    return [f"line 1 has {problem}" for problem in differences(told(first), terms)]


def round_problems(
    mechanism: Mechanism,
    terms: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    most: int,
    cohort_sizes: Sequence[int] | None,
    totals: Sequence[int] = (),
) -> list[str]:
    """What the lines of rounds say otherwise than the mechanism leads to, the noise aside.

    cohort_sizes: of each round, where they are known. most: clients that a cohort can have.
    totals: as of ``record.Ledger``.
    """
    problems = []
    epsilons: dict[int, dict[str, float | None]] = {}
    for index, line in enumerate(rounds):
        state, problem = _state_at(mechanism, terms, index, line)
        reached = reached_round(index + 1, totals or (terms["rounds"],))
        if reached not in epsilons:
            epsilons[reached] = cumulative_epsilon(mechanism, index + 1, totals)
        expected = {**released(mechanism, index, state), **epsilons[reached]}
        cohort = line.get("realised_cohort")
        if cohort_sizes is not None:
            expected["realised_cohort"] = cohort_sizes[index]
        elif type(cohort) is int and 0 <= cohort <= most:
            expected["realised_cohort"] = cohort
        else:
            problem = problem or f"realised_cohort {shown(cohort)}, of {most} clients at most"
            expected["realised_cohort"] = cohort
        fields = {name: value for name, value in told(line).items() if name != "generator"}
        if problem := problem or _metrics_problem(mechanism, state, fields):
            problems.append(f"line {index + 2} has {problem}")
            continue
        found = list(differences(fields, expected))
        problems += [f"line {index + 2} has {one}" for one in found]
    return problems


def _metrics_problem(mechanism: Mechanism, state: MechanismState, fields: dict[str, Any]) -> str:
    """What is wrong with the metrics of a line, which are taken out of ``fields``: nothing says what they should be."""
    expected = with_noise(mechanism, state).get(METRICS, {})
    if not expected:
        return ""
    said = fields.pop(METRICS, None)
    if not isinstance(said, dict) or said.keys() != expected.keys() or not all(map(is_number, said.values())):
        return f"{METRICS} {shown(said)}, which should be {', '.join(expected)}, a number each"
    return ""


def _state_at(
    mechanism: Mechanism, terms: Mapping[str, Any], index: int, line: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], str]:
    """(the mechanism's state before a round, what is wrong with the bounds that the round's line gives)."""
    state = dict(mechanism.init(0))
    if not terms["adaptive_clipping"] or index == 0:
        return state, ""
    if mechanism.grouped is None:
        bound = line.get("clipping_bound")
        if not _is_bound(bound):
            return state, f"clipping_bound {shown(bound)}, which no bound is"
        return {**state, "clipping_bound": torch.tensor(float(bound), dtype=torch.float64)}, ""
    names, said = mechanism.grouped.groups.names, line.get(GROUP_BOUNDS)
    bounds = [said.get(name) for name in names] if isinstance(said, dict) else [None]
    if not all(map(_is_bound, bounds)):
        return state, f"{GROUP_BOUNDS} {shown(said)}, which no bounds are"
    return {**state, "clipping_bound": torch.tensor(bounds, dtype=torch.float64)}, ""


def _is_bound(value: Any) -> TypeGuard[float]:
    """Far beyond any use, and near enough for all that is computed of it to be a number."""
    return is_number(value) and 1e-30 < value < 1e30


def noise_problems(noise_seed: int | None, rounds: Sequence[Mapping[str, Any]], *, bound: bool = True) -> list[str]:
    """Noise that was not drawn for its round, from the seed where that is known, or that comes twice.

    bound: to its sum, as noise is since version 2.
    """
    problems = []
    seen: dict[str, int] = {}
    for index, line in enumerate(rounds):
        where, generator = f"line {index + 2}", line.get("generator")
        said = generator if isinstance(generator, dict) else {}
        counter, mark = said.get("counter"), said.get("fingerprint")
        bound_to = str(said.get("binding")) if bound else ""
        known = bool(_BINDING.fullmatch(bound_to)) and said.keys() == _GENERATOR if bound else True
        if not isinstance(mark, str) or not known:
            problems.append(f"{where} has generator {shown(generator)}, which does not say what its noise was")
        elif mark in seen:
            problems.append(f"{where} repeats the noise of round {seen[mark]}")
        elif type(counter) is not int or counter != index:
            problems.append(f"{where} has noise of round {shown(counter)}, which should be {index}")
        elif noise_seed is not None and mark != noise_fingerprint(noise_seed, index, bound_to):
            problems.append(f"{where} was not drawn from the run's noise seed")
        if isinstance(mark, str):
            seen[mark] = index
    return problems


def anchor_problems(anchor: Anchor, heads: Sequence[str], num_covered: int) -> list[str]:
    """What an anchor says otherwise than the ledger, whose lines have the hashes ``heads``.

    num_covered: rounds that a checkpoint covers. A run that was killed may not have anchored its last line beyond them.
    """
    where = f"{anchor.path}: "
    if not anchor.heads:
        return [f"{where}has nothing of this run; line 1 of the ledger is another one, or another anchor is meant"]
    problems = [f"{where}has two lines for round {round_}: two copies went on" for round_ in anchor.contradictions]
    for round_, head in enumerate(heads):
        known = anchor.heads.get(round_)
        if known is None and not (round_ == len(heads) - 1 and round_ > num_covered):
            problems.append(f"{where}has no line for round {round_}")
        elif known not in (None, head):
            problems.append(
                f"{where}has {shown(known)[:16]}... for round {round_}, where the ledger's line is {head[:16]}..."
            )
    most = max(anchor.heads)
    if most >= len(heads):
        problems.append(f"{where}has {most} rounds of this run, and the ledger {len(heads) - 1}: lines miss at the end")
    return problems
