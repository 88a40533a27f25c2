"""``privacy_ledger.jsonl``: what a run released, one line a round, each bound to the line before by its hash.

The first line says what was promised and how; line t + 2 says what round t released. A round's line is on the disk
before anything that depends on the round's result is saved, so a checkpoint of round k never meets a ledger of fewer
than k rounds. Resuming at round k cuts the ledger back to k rounds; as the noise, the cohort and the training of a
round follow from the run's seeds, the rounds done again write the same lines again. A line that a kill cut short is a
round that nothing was saved of.

The realised cohort size is not covered by epsilon: the file is for whoever runs the training, and closed to others.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.accounting.accountants import PrivacyEvent, accounted_round, epsilon
from fedflair.privacy.accounting.shown import finite
from fedflair.privacy.contract import CohortStats, Mechanism, MechanismState, binding_of
from fedflair.privacy.mechanisms.noise import noise_fingerprint
from fedflair.system.files import disk_errors
from fedflair.system.json_text import parse_json

FORMAT = "fedflair-privacy-ledger"
# 2: noise is bound to the sum that it is added to. Ledgers of version 1 are verified, and not continued.
VERSION = 2
FILE_NAME = "privacy_ledger.jsonl"
ORIGIN = "0" * 64


@dataclass(frozen=True)
class Ledger:
    """An open ledger: where it is, how many rounds it has, and the hash of its last line."""

    path: Path
    mechanism: Mechanism
    noise_seed: int
    num_rounds: int
    head: str


def create(folder: Path, mechanism: Mechanism, noise_seed: int) -> Ledger:
    """Starts the ledger of a new run, before its first checkpoint. Raises DataError where there is one already."""
    path = folder / FILE_NAME
    text, head = _sealed(_terms(mechanism, noise_seed), ORIGIN)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise DataError(f"{path}: this run has a ledger already; resume it, or name another folder") from error
    _write_and_sync(descriptor, text)
    _sync_folder(folder)
    return Ledger(path, mechanism, noise_seed, 0, head)


def is_due(mechanism: Mechanism) -> bool:
    """Runs whose rounds have an epsilon keep a ledger."""
    return mechanism.event(1) is not None


def append(ledger: Ledger, round_: int, cohort: CohortStats, state: MechanismState, after: MechanismState) -> Ledger:
    """Writes down round ``round_``, whose sum got its noise under ``state``, the state before the round.

    after: the mechanism's state after it, which has what the noise was bound to.

    Returns once the line is on the disk. Raises PrivacyError where the round is not the ledger's next one.
    """
    if round_ != ledger.num_rounds:
        raise PrivacyError(
            f"{ledger.path}: round {round_} cannot follow {ledger.num_rounds} rounds; resume from the checkpoint"
        )
    mechanism = ledger.mechanism
    facts = mechanism.description
    bound, bound_to = mechanism.clipping_bound(state), binding_of(after)
    line = {
        "round": round_,
        "sampling": facts["sampling"],
        "expected_cohort": facts["cohort_size"],
        "realised_cohort": cohort.num_clients,
        "clipping_bound": bound,
        "sensitivity": bound * (2 if facts["neighbouring"] == "replace_one" else 1),
        "noise_std": mechanism.noise_std(state, round_),
        "generator": {
            "counter": round_,
            "binding": bound_to,
            "fingerprint": noise_fingerprint(ledger.noise_seed, round_, bound_to),
        },
        **cumulative_epsilon(_terms(mechanism, ledger.noise_seed), round_ + 1),
    }
    text, head = _sealed(line, ledger.head)
    try:
        _write_and_sync(os.open(ledger.path, os.O_WRONLY | os.O_APPEND), text)
    except OSError as error:
        raise DataError(
            f"{ledger.path}: cannot be written ({error.strerror}); free the disk and resume the run"
        ) from error
    return replace(ledger, num_rounds=round_ + 1, head=head)


def resume(folder: Path, round_: int, mechanism: Mechanism, noise_seed: int) -> Ledger:
    """Opens a run's ledger at the checkpoint of ``round_``; what it holds of later rounds is dropped, to be done again.

    Raises DataError where the ledger is missing or damaged, or where the run's options or noise seed are not those it
    was started with; PrivacyError where rounds are missing.
    """
    path = folder / FILE_NAME
    terms = _terms(mechanism, noise_seed)
    kept, head, problem = [], ORIGIN, ""
    for number, (line, problem) in enumerate(read_lines(path)):
        if number > round_:
            break
        if not problem and (line["previous"] != head or (number and line.get("round") != number - 1)):
            problem = f"line {number + 1} does not follow from the line before"
        if problem:
            break
        kept.append(line)
        head = line["hash"]
    if not kept:
        raise DataError(f"{path}: {problem or 'is empty'}; start the run again")
    if kept[0].get("version") == 1:
        raise PrivacyError(
            f"{path}: the run was started by an older fedflair, whose noise was not bound to its sums; start it again"
        )
    if not _agree({name: value for name, value in kept[0].items() if name not in ("previous", "hash")}, terms):
        raise DataError(f"{path}: the run was started with other privacy options or another noise seed; use those")
    if len(kept) - 1 < round_:
        reason = problem or f"it ends after round {len(kept) - 2}"
        raise PrivacyError(f"{path}: {reason}, but the checkpoint has {round_} rounds; this run cannot be continued")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    _write_and_sync(descriptor, "".join(_canonical(line) + "\n" for line in kept))
    temporary.replace(path)
    _sync_folder(folder)
    return Ledger(path, mechanism, noise_seed, round_, head)


def read_lines(path: Path) -> list[tuple[dict[str, Any], str]]:
    """The ledger's lines, each with what is wrong with it by itself ('' for nothing). DataError without a ledger."""
    if not path.exists():
        raise DataError(f"{path}: no such ledger; only runs with a privacy mechanism keep one")
    with disk_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    *whole, torn = text.split("\n")
    lines = [_read(line) for line in whole]
    return [*lines, ({}, "cut short")] if torn else lines


def cumulative_epsilon(terms: Mapping[str, Any], num_rounds: int, *, use_cache: bool = True) -> dict[str, float | None]:
    """Epsilon after ``num_rounds`` rounds, of the deployment and of the run; None is infinite.

    Computed on the grid of ``accounted_round``, rounded up to its next point.
    """
    found: dict[str, float | None] = {}
    rounds = accounted_round(num_rounds, terms["rounds"])
    for name, source in (("epsilon", "event"), ("run_epsilon", "run_event")):
        if terms[source] is None:
            found[name] = None
            continue
        # Within min_separation rounds every client is in at most one cohort: together they are one release.
        event = replace(PrivacyEvent(**terms[source]), count=math.ceil(rounds / terms["min_separation"]))
        found[name] = finite(epsilon(event, terms["delta"], terms["accountant"], use_cache=use_cache))
    return found


def seed_commitment(noise_seed: int) -> str:
    """What binds a ledger to one noise seed; gives nothing of a seed of 128 random bits away."""
    return hashlib.sha256(f"fedflair noise seed\x1f{noise_seed}".encode()).hexdigest()


def _terms(mechanism: Mechanism, noise_seed: int) -> dict[str, Any]:
    """The first line: the mechanism's description and its events, from which every epsilon can be computed."""
    facts = {name: value for name, value in mechanism.description.items() if name != "words"}
    num_rounds = facts["rounds"]
    event, run_event = mechanism.event(num_rounds), mechanism.run_event(num_rounds)
    return {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "event": event and event.as_dict(),
        "run_event": run_event and run_event.as_dict(),
        "noise_seed_commitment": seed_commitment(noise_seed),
    }


def _sealed(line: dict[str, Any], previous: str) -> tuple[str, str]:
    """(the line's text with the hash of the line before and its own, its own hash)."""
    linked = {**line, "previous": previous}
    own = hashlib.sha256(_canonical(linked).encode()).hexdigest()
    return _canonical({**linked, "hash": own}) + "\n", own


def _read(text: str) -> tuple[dict[str, Any], str]:
    try:
        line = parse_json(text)
        # What is no number has no place in a ledger, and none in what its hash is made of.
        canonical = _canonical(line)
    except ValueError:
        return {}, "is not JSON"
    if not isinstance(line, dict) or not isinstance(line.get("hash"), str) or not isinstance(line.get("previous"), str):
        return {}, "is not a line of a ledger"
    unsealed = {name: value for name, value in line.items() if name != "hash"}
    if hashlib.sha256(_canonical(unsealed).encode()).hexdigest() != line["hash"] or canonical != text:
        return line, "was edited (its hash does not fit)"
    return line, ""


def _agree(found: Any, expected: Any) -> bool:
    """Equal but for the last digits of numbers that another machine calibrated."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_agree(found[name], expected[name]) for name in found)
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-6)
    return bool(found == expected)


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _write_and_sync(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
