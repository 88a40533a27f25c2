"""How a run begins: anew, or from a checkpoint, in a folder that no other process writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import images_per_person
from fedflair.engine.cpu.choice import Kind
from fedflair.engine.cpu.kernels import continued
from fedflair.engine.flat_model import frozen_tensors
from fedflair.errors import ConfigError, DataError
from fedflair.evaluation.start import open_start
from fedflair.federated.client_states import ClientStates
from fedflair.federated.networks import own_code
from fedflair.federated.plugins import plugin_code
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup, groups_of, initial_state, make_setup, mechanisms_of
from fedflair.federated.start import Start, origin_of
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger.anchor import require_anchor
from fedflair.runs.configuration import check_same_run, require_store
from fedflair.runs.environment import Entry, append_entry, read_environment
from fedflair.runs.folder import RunFolder, go_further, new_run, read_config, write_config, writing
from fedflair.runs.more_rounds import notes_on_more_rounds
from fedflair.runs.provenance import (
    ROUNDS,
    Provenance,
    plain_options,
    read_provenance,
    with_rounds,
    write_provenance,
)
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.system.files import sweep
from fedflair.training.accountant import as_begun, first_line
from fedflair.training.checkpoint import check_provenance, check_states, go_back, last_checkpoint, save_checkpoint
from fedflair.training.record import restore_best
from fedflair.training.resolved import environment_of
from fedflair.training.round import is_private
from fedflair.training.run_states import check_room, open_run_states
from fedflair.training.stopping import out_of_patience


@dataclass(frozen=True)
class Beginning:
    """What the first round takes. book: the private run's ledger. facts: what travels with checkpoints.

    environment: what made the run so far, this beginning included.
    notes: what the user has to know of the folder, a line each.
    """

    setup: TrainingSetup
    folder: RunFolder
    state: ServerState
    facts: dict[str, Any]
    states: ClientStates
    book: ledger.Ledger | None
    environment: Sequence[Entry]
    notes: tuple[str, ...] = ()


@contextmanager
def begun(config: TrainConfig, command: Sequence[str] | None = None) -> Iterator[Beginning]:
    """The run at its beginning; its folder is this process's alone within the block.

    command: the words as they were typed, where a command asks for it.
    Raises ConfigError, DataError and PrivacyError for what cannot be trained, or cannot be continued.
    """
    if config.run.resume:
        if config.run.run is None:
            raise ConfigError("resume: name the run's folder with --run")
        folder = RunFolder(config.run.run)
        if not folder.path.is_dir():
            raise DataError(f"{folder.path}: no such folder; name the run's own with --run")
        with writing(folder):
            yield _resumed(config, folder, command)
        return
    noise_seed, start = config.run.seed if config.run.noise_from_seed else secrets.randbits(128), open_start(config)
    setup = make_setup(config, noise_seed, start=start)
    folder = new_run(config)
    check_beginning(setup, folder)
    if config.run.ledger_anchor is not None:
        # Before there is a folder that would have to be begun again.
        require_anchor(config.run.ledger_anchor)
    with writing(folder):
        yield _new(setup, folder, command, start)


def _new(setup: TrainingSetup, folder: RunFolder, command: Sequence[str] | None, start: Start | None) -> Beginning:
    state = initial_state(setup)
    write_config(folder, setup.config)
    provenance = _provenance(setup, None if start is None else start.record)
    write_provenance(folder, provenance)
    environment = append_entry(folder, environment_of(setup, 0, command))
    save_tensors(folder.fixed, frozen_tensors(setup.worker.module), {})
    facts: dict[str, Any] = {"best": None, "best_round": 0, "seconds": 0.0, "noise_seed": str(setup.noise_seed)}
    facts["provenance"], book = provenance.digest(), None
    if is_private(setup):
        anchor = setup.config.run.ledger_anchor
        book = ledger.create(folder.path, setup.mechanism, setup.noise_seed, facts["provenance"], anchor)
        facts["ledger"] = book.head
    states = open_run_states(setup, folder.path, 0)
    save_checkpoint(folder, state, facts, states)
    notes = () if start is None else (f"starts from {start.name}: {_model_words(start.record)}",)
    return Beginning(setup, folder, state, facts, states, book, environment, notes)


def _resumed(config: TrainConfig, folder: RunFolder, command: Sequence[str] | None) -> Beginning:
    check_same_run(config, folder)
    for place in (folder.path, folder.last.parent):
        sweep(place)
    if config.run.resume_from == "previous":
        go_back(folder)
    if not folder.last.is_file():
        raise DataError(f"{folder.last}: no checkpoint to resume from; remove {folder.path} and start the run again")
    state, facts = last_checkpoint(folder, config.hardware.torch_device())
    provenance = read_provenance(folder)
    check_provenance(folder, provenance, facts)
    _check_rounds(config, folder, provenance, state.round, facts)
    # A damaged one is told before anything is written.
    read_environment(folder)
    require_store(config)
    if provenance is not None:
        provenance.check_plugins(plugin_code(config))
        provenance.check_network(own_code(config), config.model.model_type)
    # All that is trained comes from the checkpoint, and the rest of the model from beside it: no weights are fetched.
    kernels, notes = _kernels(config, provenance)
    start = Start(provenance.started_from) if provenance is not None and provenance.started_from else None
    begun = as_begun(config, first_line(folder.path))
    setup = make_setup(begun, int(facts["noise_seed"]), load_tensors(folder.fixed)[0], kernels, start)
    if provenance is None:
        provenance = _provenance(setup, None)
        write_provenance(folder, provenance)
        facts["provenance"] = provenance.digest()
        notes.append("begun by an earlier fedflair, without checksums: what was damaged or exchanged since is not seen")
    provenance.check_store(
        setup.worker.store.fingerprint, setup.worker.store.path, "name the run's own with --data_path"
    )
    _check_anchor(setup, folder)
    further = with_rounds(provenance, config)
    book = None if not is_private(setup) else _opened_ledger(setup, folder, state.round, facts, further)
    states = open_run_states(setup, folder.path, state.round)
    check_states(folder, states, state.round)
    restore_best(folder, state, facts)
    if further != provenance:
        before = config.changed(central_num_iterations=provenance.totals[-1])
        notes += notes_on_more_rounds(before, further.totals[-1], state.round)
        # First of all, as what is written then follows from it wherever a kill comes.
        write_provenance(folder, further)
    if further.more_rounds and (further != provenance or read_config(folder)[ROUNDS] != further.totals[-1]):
        go_further(folder, config)
    environment = append_entry(folder, environment_of(setup, state.round, command))
    return Beginning(setup, folder, state, facts, states, book, environment, tuple(notes))


def _check_rounds(
    config: TrainConfig, folder: RunFolder, provenance: Provenance | None, round_: int, facts: Mapping[str, Any]
) -> None:
    """Raises DataError where the checkpoint has more rounds than the run, ConfigError where more would not be done."""
    if provenance is None:
        return
    had, wanted = provenance.totals[-1], config.option(ROUNDS)
    if round_ > had:
        raise DataError(
            f"{folder.provenance}: says nothing of more than {had:,} rounds, and the checkpoint has {round_:,}; "
            "restore it, or start the run again"
        )
    if wanted > had and out_of_patience(config, facts, round_):
        raise ConfigError(
            f"{ROUNDS}: the run ended after round {round_:,} by its early_stopping_patience, as it would with "
            f"{wanted:,} rounds; start a new run with more patience"
        )


def _opened_ledger(
    setup: TrainingSetup, folder: RunFolder, round_: int, facts: Mapping[str, Any], provenance: Provenance
) -> ledger.Ledger:
    """The ledger of a private run that goes on. provenance: with the rounds that it is to have now."""
    began_with, totals = None, provenance.totals
    if len(totals) > 1:
        fewer = setup.config.changed(central_num_iterations=totals[0])
        images = images_per_person(setup.worker.store, "train")
        groups, origin = groups_of(fewer, len(provenance.labels)), origin_of(provenance.started_from, provenance.store)
        num_clients = len(setup.worker.clients.client_ids)
        began_with = mechanisms_of(fewer, num_clients, setup.noise_seed, images, groups, origin)[0]
    return ledger.resume(
        folder.path,
        round_,
        setup.mechanism,
        setup.noise_seed,
        provenance.digest(),
        str(facts.get("ledger")),
        setup.config.run.ledger_anchor,
        totals=totals,
        began_with=began_with,
    )


def check_beginning(setup: TrainingSetup, folder: RunFolder) -> None:
    """Raises ConfigError where a new run would not fit into the place of ``folder``, or not go with its options."""
    check_room(setup, setup.config.run.run or Path("runs"))
    _check_anchor(setup, folder)


def _check_anchor(setup: TrainingSetup, folder: RunFolder) -> None:
    """Raises ConfigError for an anchor that would hold nothing, or nobody."""
    anchor = setup.config.run.ledger_anchor
    if anchor is None:
        return
    if not is_private(setup):
        raise ConfigError("ledger_anchor: this run promises no epsilon and keeps no ledger; drop it")
    if folder.path.resolve() in anchor.resolve().parents:
        raise ConfigError(f"ledger_anchor: {anchor} lies in the run's own folder; keep it elsewhere")


def _model_words(record: Mapping[str, Any]) -> str:
    return f"the {record['checkpoint']} model, of round {record['round']}"


def _provenance(setup: TrainingSetup, started_from: Mapping[str, Any] | None) -> Provenance:
    worker = setup.worker
    num_clients = len(worker.clients.client_ids) if worker.algorithm.federated else None
    return Provenance(
        plain_options(setup.config),
        worker.store.fingerprint,
        worker.labels.names,
        num_clients,
        own_code(setup.config),
        worker.kernels if worker.device.type == "cpu" else None,
        plugin_code(setup.config),
        started_from,
    )


def _kernels(config: TrainConfig, provenance: Provenance | None) -> tuple[Kind | None, list[str]]:
    """What a run that goes on computes with (None: what the machine chooses), and notes on it."""
    if provenance is None or provenance.kernels is None or config.hardware.torch_device().type != "cpu":
        return None, []
    kernels, note = continued(provenance.kernels)
    return kernels, [note] if note else []
