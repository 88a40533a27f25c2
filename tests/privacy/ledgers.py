"""A finished run's folder for the tests of its ledger: made in a moment, with nothing trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedflair import __version__
from fedflair.config.train_config import TrainConfig
from fedflair.federated.setup import mechanisms_of
from fedflair.privacy.contract import BINDING, MechanismState, encoded
from fedflair.privacy.ledger import coverage, lines
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms import CohortStats, Mechanism
from fedflair.runs.folder import RunFolder, write_config
from fedflair.runs.json_text import dumps
from fedflair.runs.provenance import Provenance, plain_options, write_provenance
from fedflair.runs.tensors import load_tensors, save_tensors

SEED = 3 << 100
ROUNDS = 6
COHORTS = (20, 17, 0, 25, 21, 19)
CLIENTS = 400

Line = dict[str, Any]


def small_config(**options: Any) -> TrainConfig:
    """Of 6 rounds, with noise for larger cohorts than the run's: epsilon 2 of the deployment it simulates."""
    defaults: dict[str, Any] = {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "central_delta": 1e-4,
        "cohort_size": 20,
        "noise_cohort_size": 40,
        "central_num_iterations": ROUNDS,
        "data_path": Path("nowhere.hdf5"),
    }
    return TrainConfig.of(**{**defaults, **options})


def mechanism_of(config: TrainConfig) -> Mechanism:
    return mechanisms_of(config, CLIENTS, SEED)[0]


def small_mechanism() -> Mechanism:
    return mechanism_of(small_config())


def provenance_of(config: TrainConfig) -> Provenance:
    return Provenance(plain_options(config), "5" * 64, ("animal",), CLIENTS)


def after(round_: int) -> MechanismState:
    """A mechanism's state after a round, bound to nothing in particular."""
    return {BINDING: encoded(f"{round_:032x}")}


def begun_run(folder: Path, config: TrainConfig, anchor: Path | None = None) -> ledger.Ledger:
    """What a run has before its first round; returns its ledger."""
    folder.mkdir(exist_ok=True)
    write_config(RunFolder(folder), config)
    write_provenance(RunFolder(folder), provenance_of(config))
    book = ledger.create(folder, mechanism_of(config), SEED, provenance_of(config).digest(), anchor)
    save_checkpoint(folder, book)
    return book


def save_checkpoint(folder: Path, book: ledger.Ledger) -> None:
    save_tensors(folder / "checkpoints" / "last.safetensors", {}, facts_of(book))


def facts_of(book: ledger.Ledger) -> dict[str, Any]:
    """What a checkpoint says at the ledger's end."""
    digest = book.terms["provenance"]
    return {"round": book.num_rounds, "noise_seed": str(SEED), "ledger": book.head, "provenance": digest}


def released(book: ledger.Ledger, num_rounds: int, state: MechanismState | None = None) -> ledger.Ledger:
    """The ledger after as many more rounds, of cohorts of the sizes ``COHORTS``, or of the fixed one."""
    facts = book.mechanism.description
    for round_ in range(book.num_rounds, book.num_rounds + num_rounds):
        cohort = facts["cohort_size"] if facts["sampling"] == "fixed" else COHORTS[round_]
        state = state or book.mechanism.init(0)
        book = ledger.append(book, round_, CohortStats(cohort, 0, 0), state, after(round_))
    return book


def finished_run(folder: Path, config: TrainConfig | None = None, anchor: Path | None = None) -> Path:
    """Configuration, provenance, ledger, checkpoint and summary."""
    config = config or small_config()
    book = released(begun_run(folder, config, anchor), ROUNDS)
    save_checkpoint(folder, book)
    summary = {
        "setting": config.setting,
        "rounds": ROUNDS,
        "seconds": 1.0,
        "val": {},
        "test": {},
        "privacy": dict(book.mechanism.description),
        "local_privacy": None,
        coverage.FIELD: coverage.SUMMARY,
        "ledger": book.head,
        "version": __version__,
    }
    (folder / "summary.json").write_text(dumps(summary))
    return folder


def resumed(folder: Path, round_: int, config: TrainConfig | None = None, **changes: Any) -> ledger.Ledger:
    """The ledger opened at a checkpoint of that round, which was written with the line that is there now."""
    config = config or small_config()
    found = [line for line, _ in lines.read_lines(folder / lines.FILE_NAME)]
    head = found[round_].get("hash", "") if round_ < len(found) else ""
    given: dict[str, Any] = {
        "mechanism": mechanism_of(config),
        "noise_seed": SEED,
        "provenance": provenance_of(config).digest(),
        "head": head,
    }
    return ledger.resume(folder, round_, **{**given, **changes})


def lines_of(run: Path) -> list[Line]:
    return [json.loads(line) for line in (run / lines.FILE_NAME).read_text().splitlines()]


def reseal(
    run: Path,
    changed: list[Line],
    previous: Callable[[int, str], str] = lambda number, head: head,
    *,
    all_: bool = True,
) -> None:
    """Writes the lines with hashes that fit. previous: what a line says of the one before, given its number.

    all_: the checkpoint and the summary get the hashes that they should have, as whoever can write one can write all.
    """
    heads, text = [lines.ORIGIN], ""
    for number, line in enumerate(changed):
        sealed, head = lines.sealed(lines.told(line), previous(number, heads[-1]))
        text += sealed
        heads.append(head)
    (run / lines.FILE_NAME).write_text(text)
    _rehead(run, heads[1:])
    return heads[1:]


def _rehead(run: Path, heads: list[str]) -> None:
    """Gives checkpoints and the summary the hashes of the ledger's lines."""
    for path in sorted((run / "checkpoints").glob("*.safetensors")):
        tensors, facts = load_tensors(path)
        round_ = facts.get("round", facts.get("best_round", len(heads)))
        if "ledger" in facts and round_ < len(heads):
            save_tensors(path, tensors, {**facts, "ledger": heads[round_]})
    summary = run / "summary.json"
    if summary.is_file():
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "ledger": heads[-1]}))
