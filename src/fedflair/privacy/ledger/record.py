"""``privacy_ledger.jsonl``: what a run released, one line a round, each bound to the line before by its hash.

The first line says what was promised and how, for which run; line t + 2 says what round t released. A round's line is
on the disk before anything that depends on the round's result is saved, so a checkpoint of round k never meets a
ledger of fewer than k rounds; it carries the hash of the last of them. As the noise, the cohort and the training of a
round follow from the run's seeds, a round done again after a kill makes the same line again, which is recognised and
not written twice. A line that a kill cut short is a round that nothing was saved of.

The realised cohort size is not covered by epsilon: the file is for whoever runs the training, and closed to others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.accounting.accountants import accounted_round, epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.shown import finite
from fedflair.privacy.contract import CohortStats, Mechanism, MechanismState, binding_of
from fedflair.privacy.ledger import anchor as anchors
from fedflair.privacy.ledger.agreement import differences
from fedflair.privacy.ledger.anchor import Anchor
from fedflair.privacy.ledger.lines import FILE_NAME, FORMAT, ORIGIN, VERSION, read_lines, sealed, text_of, told
from fedflair.privacy.mechanisms.noise import noise_fingerprint
from fedflair.system.files import sync_folder, write_atomically

# What lines have beside what all have: a round's metrics with noise, and the bounds of groups that are clipped apart.
METRICS = "private_metrics"
GROUP_BOUNDS = "group_clipping_bounds"


@dataclass(frozen=True)
class Ledger:
    """An open ledger: where it is, how many rounds it has, and the hash of the line of the last of them.

    terms: what line 1 says. ahead: lines in the file of rounds that a resumed run will do again.
    anchor: where the hashes of lines are left as well; None is nowhere.
    totals: how many rounds the run was to have, from line 1's number on; more were added since where there are several.
    """

    path: Path
    mechanism: Mechanism
    noise_seed: int
    terms: Mapping[str, Any]
    num_rounds: int
    head: str
    ahead: tuple[str, ...] = ()
    anchor: Anchor | None = None
    totals: tuple[int, ...] = ()


def create(folder: Path, mechanism: Mechanism, noise_seed: int, provenance: str, anchor: Path | None = None) -> Ledger:
    """Starts the ledger of a new run, before its first checkpoint. Raises DataError where there is one already.

    provenance: the digest of what the run belongs to (``runs/provenance.py``). anchor: as of ``Ledger``.
    """
    path, terms = folder / FILE_NAME, terms_of(mechanism, noise_seed, provenance)
    text, head = sealed(terms, ORIGIN)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise DataError(f"{path}: this run has a ledger already; resume it, or name another folder") from error
    _write_and_sync(descriptor, text)
    sync_folder(folder)
    left = None if anchor is None else anchors.anchored(Anchor(anchor, head, {}), 0, head)
    return Ledger(path, mechanism, noise_seed, terms, 0, head, anchor=left)


def is_due(mechanism: Mechanism) -> bool:
    """Runs whose rounds have an epsilon keep a ledger."""
    return mechanism.event(1) is not None


def append(ledger: Ledger, round_: int, cohort: CohortStats, state: MechanismState, after: MechanismState) -> Ledger:
    """Writes down round ``round_``, whose sum got its noise under ``state``, the state before the round.

    after: the mechanism's state after it, which has what the noise was bound to.

    Returns once the line is on the disk, and in the anchor. Raises PrivacyError where the round is not the ledger's
    next one, or where the anchor has another line for it.
    """
    if round_ != ledger.num_rounds:
        raise PrivacyError(
            f"{ledger.path}: round {round_} cannot follow {ledger.num_rounds} rounds; resume from the checkpoint"
        )
    bound_to = binding_of(after)
    line = {
        **released(ledger.mechanism, round_, state),
        **cumulative_epsilon(ledger.mechanism, round_ + 1, ledger.totals),
        **with_noise(ledger.mechanism, after),
        "realised_cohort": cohort.num_clients,
        "generator": {
            "counter": round_,
            "binding": bound_to,
            "fingerprint": noise_fingerprint(ledger.noise_seed, round_, bound_to),
        },
    }
    text, head = sealed(line, ledger.head)
    if ledger.anchor is not None:
        # Before the ledger changes: where the anchor refuses, it still says what was done first.
        anchors.check(ledger.anchor, round_ + 1, head)
    ahead = _write_next(ledger, text)
    left = None if ledger.anchor is None else anchors.anchored(ledger.anchor, round_ + 1, head)
    return replace(ledger, num_rounds=round_ + 1, head=head, ahead=ahead, anchor=left)


def _write_next(ledger: Ledger, text: str) -> tuple[str, ...]:
    """Has the file go on with the line ``text``; returns the lines that it has after that one."""
    if ledger.ahead[:1] == (text,):
        return ledger.ahead[1:]
    try:
        if ledger.ahead:
            # On a GPU a round done again may differ in the last bits of its sum, and so in its noise.
            kept = ledger.path.read_text().removesuffix("".join(ledger.ahead))
            write_atomically(ledger.path, kept + text, mode=0o600)
        else:
            _write_and_sync(os.open(ledger.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), text)
    except OSError as error:
        raise DataError(
            f"{ledger.path}: cannot be written ({error.strerror}); free the disk and resume the run"
        ) from error
    return ()


def resume(
    folder: Path,
    round_: int,
    mechanism: Mechanism,
    noise_seed: int,
    provenance: str,
    head: str,
    anchor: Path | None = None,
    *,
    totals: tuple[int, ...] = (),
    began_with: Mechanism | None = None,
) -> Ledger:
    """Opens a run's ledger at the checkpoint of ``round_``; its lines of later rounds stay, to be recognised.

    head: the hash of the ledger's line that the checkpoint was written with. provenance, anchor: as of ``create``.
    totals: as of ``Ledger``. began_with: the mechanism of the first of them, where there are several.

    Raises DataError where the ledger is missing or damaged, or where the run's options or noise seed are not those it
    was started with; PrivacyError where rounds are missing, or are not those of the checkpoint or of the anchor.
    """
    path = folder / FILE_NAME
    kept, problem = _sound_lines(path)
    if not kept:
        raise DataError(f"{path}: {problem or 'is empty'}; start the run again")
    version = kept[0].get("version")
    if type(version) is int and version < VERSION:
        raise PrivacyError(
            f"{path}: the run was started by an older fedflair, whose ledger (version {version}) is not bound to its "
            "run; start it again"
        )
    terms = terms_of(began_with or mechanism, noise_seed, provenance)
    if other := next(differences(told(kept[0]), terms), ""):
        raise DataError(
            f"{path}: the run was started with other privacy options or another noise seed (line 1 has {other}); use "
            "those"
        )
    if len(kept) - 1 < round_:
        reason = problem or f"it ends after round {len(kept) - 2}"
        raise PrivacyError(f"{path}: {reason}, but the checkpoint has {round_} rounds; this run cannot be continued")
    if kept[round_]["hash"] != head:
        raise PrivacyError(
            f"{path}: line {round_ + 1} is not the one that the checkpoint was written with; this run cannot be "
            "continued"
        )
    left = None if anchor is None else _anchor_at(anchor, [line["hash"] for line in kept[: round_ + 1]])
    write_atomically(path, "".join(map(text_of, kept)), mode=0o600)
    ahead = tuple(text_of(line) for line in kept[round_ + 1 :])
    return Ledger(path, mechanism, noise_seed, terms, round_, head, ahead, left, totals)


def _sound_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """(the lines up to the first that does not follow from the one before, what is wrong with that one)."""
    kept: list[dict[str, Any]] = []
    for number, (line, wrong) in enumerate(read_lines(path)):
        problem, head = wrong, kept[-1]["hash"] if kept else ORIGIN
        if not problem and (line["previous"] != head or (number and line.get("round") != number - 1)):
            problem = f"line {number + 1} does not follow from the line before"
        if problem:
            return kept, problem
        kept.append(line)
    return kept, ""


def _anchor_at(path: Path, heads: list[str]) -> Anchor:
    """The anchor of a run whose first lines have these hashes, each of which it must have."""
    anchor = anchors.read_anchor(path, heads[0])
    for round_, head in enumerate(heads):
        anchors.check(anchor, round_, head)
        if round_ not in anchor.heads:
            raise PrivacyError(
                f"{path}: ledger_anchor has nothing of round {round_} of this run; name the anchor that the run began "
                "with"
            )
    return anchor


def terms_of(mechanism: Mechanism, noise_seed: int, provenance: str) -> dict[str, Any]:
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
        "provenance": provenance,
        "noise_seed_commitment": seed_commitment(noise_seed),
    }


def released(mechanism: Mechanism, round_: int, state: MechanismState) -> dict[str, Any]:
    """What the line of ``round_`` says that follows from the mechanism, and from its state before the round alone."""
    facts, bound = mechanism.description, mechanism.clipping_bound(state)
    groups: dict[str, Any] = {}
    if mechanism.grouped is not None:
        names = mechanism.grouped.groups.names
        groups[GROUP_BOUNDS] = dict(zip(names, mechanism.grouped.bounds(state)))
        groups["group_noise_stds"] = dict(zip(names, mechanism.grouped.noise_stds(state, round_)))
    return {
        "round": round_,
        "sampling": facts["sampling"],
        "expected_cohort": facts["cohort_size"],
        "clipping_bound": bound,
        "sensitivity": bound * (2 if facts["neighbouring"] == "replace_one" else 1),
        "noise_std": mechanism.noise_std(state, round_),
        **groups,
    }


def with_noise(mechanism: Mechanism, after: MechanismState) -> dict[str, Any]:
    """What the line of a round says of metrics that were released with it, from the state after the round."""
    noisy = mechanism.noisy_metrics(after)
    return {METRICS: dict(noisy)} if noisy else {}


def reached_round(num_rounds: int, totals: Sequence[int]) -> int:
    """The number of rounds whose epsilon a line states after ``num_rounds``: the next point of ``accounted_round``.

    totals: as of ``Ledger``; a line's grid ends with the first of them that has its round, whenever more were added.
    """
    return accounted_round(num_rounds, next((total for total in totals if num_rounds <= total), totals[-1]))


def cumulative_epsilon(mechanism: Mechanism, num_rounds: int, totals: Sequence[int] = ()) -> dict[str, float | None]:
    """Epsilon after ``num_rounds`` rounds, of the deployment and of the run; None is infinite.

    Computed on a grid, rounded up to its next point. totals: as of ``reached_round``.
    """
    facts = mechanism.description
    rounds = reached_round(num_rounds, totals or (facts["rounds"],))
    made = {"epsilon": mechanism.event, "run_epsilon": mechanism.run_event}
    return {name: _epsilon_after(event_after, rounds, facts) for name, event_after in made.items()}


def _epsilon_after(
    event_after: Callable[[int], PrivacyEvent | None], rounds: int, facts: Mapping[str, Any]
) -> float | None:
    event, whole, delta = event_after(rounds), event_after(facts["rounds"]), facts["delta"]
    if event is None or whole is None:
        return None
    if facts["accountant"] != "monte_carlo" or event.count >= whole.count:
        return finite(epsilon(event, delta, facts["accountant"]))
    # On the way a second is enough, not a minute; and what all rounds cost bounds what the first of them do.
    return finite(min(epsilon(event, delta, "rdp"), epsilon(whole, delta, "monte_carlo")))


def seed_commitment(noise_seed: int) -> str:
    """What binds a ledger to one noise seed; gives nothing of a seed of 128 random bits away."""
    return hashlib.sha256(f"fedflair noise seed\x1f{noise_seed}".encode()).hexdigest()


def _write_and_sync(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
