"""Training in simulated federated learning: set-up, then the visible loop.

A round: cohort from (seed, round) -> each client trains -> clip -> streaming sum -> noise once -> divide -> server
optimizer -> next state.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedflair import __version__
from fedflair.backends.ray.last_words import last_words
from fedflair.backends.threads import Backend, choose_backend, require_backend, uses_ray
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.engine.flat_model import frozen_tensors
from fedflair.engine.vector import quotient
from fedflair.errors import ConfigError, DataError, FedflairError, Interrupted, WorkerError
from fedflair.evaluation.partition import Scores, score_partition
from fedflair.evaluation.users import federated_evaluation
from fedflair.federated.aggregate import TreeSum, UpdateSum, cohort_groups
from fedflair.federated.client_states import NO_STATES, ClientStates
from fedflair.federated.participation import Participation, participate
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import Setup, initial_state, make_setup
from fedflair.metrics.per_user import UserAverages
from fedflair.privacy.ledger import coverage
from fedflair.privacy.ledger import record as ledger
from fedflair.runs.folder import RunFolder, create_run, write_atomically
from fedflair.runs.tensors import load_tensors, save_tensors, sweep
from fedflair.runs.tracker import tracker
from fedflair.training.checkpoint import load_state, save_state
from fedflair.training.client_group import ClientWork, train_group
from fedflair.training.run_states import check_room, describe_states, open_run_states


def run_round(
    state: ServerState,
    cohort: list[str],
    *,
    setup: Setup,
    backend: Backend,
    states: ClientStates = NO_STATES,
) -> tuple[ServerState, UpdateSum]:
    """One round from ``state`` with the clients of ``cohort``: (next state, sum over the cohort before noise).

    Without a central mechanism the sum is divided by the sum of weights; with one, by the expected cohort size, since
    the realised one is not public. Raises Interrupted between two clients when the backend is stopped.
    """
    mechanism = setup.mechanism
    server = Broadcast(
        state.round, state.parameters, state.algorithm_state, mechanism.clipping_bound(state.mechanism_state)
    )
    most = setup.config.max_num_user_images
    groups = cohort_groups(cohort, lambda client_id: min(setup.dataset.num_images(client_id), most))
    work = ([ClientWork(client_id, states.get(state.round, client_id)) for client_id in group] for group in groups)
    tree = TreeSum(len(groups))
    for index, partial in backend.map_unordered(train_group, server, work):
        states.put(state.round, partial.client_states)
        tree.add(index, replace(partial, client_states={}))
    cohort_sum = seen = tree.total
    total = torch.zeros_like(state.parameters) if cohort_sum.delta is None else cohort_sum.delta
    if mechanism.name == "none":
        divisor = cohort_sum.weight or 1.0
    else:
        divisor = float(setup.sampler.description.cohort_size)
        total, mechanism_state = mechanism.add_noise(total, cohort_sum.cohort, state.round, state.mechanism_state)
        state = replace(state, mechanism_state=mechanism_state)
    if private(setup):
        # Nothing of the clients reaches the next model but the noisy sum.
        seen = UpdateSum()
    return setup.algorithm.server_update(state, quotient(total, divisor), seen), cohort_sum


def train(config: TrainConfig) -> Path:
    """Trains as configured and returns the run folder; see ``tracking.py`` for what it holds then.

    Raises Interrupted after writing a checkpoint when the process gets SIGINT or SIGTERM.
    """
    keep_freed_memory()
    require_backend(config)
    if config.resume:
        folder = _run_to_resume(config)
        facts = load_tensors(folder.last)[1]
        setup = make_setup(config, noise_seed=int(facts["noise_seed"]))
        state, facts = load_state(folder.last, setup.device)
        book = ledger.resume(folder.path, state.round, setup.mechanism, setup.noise_seed) if private(setup) else None
    else:
        setup = make_setup(config, noise_seed=config.seed if config.noise_from_seed else secrets.randbits(128))
        state, facts = initial_state(setup), {"best": None, "best_round": 0, "seconds": 0.0}
        check_room(setup, config.run or Path("runs"))
        folder = create_run(config)
        save_tensors(folder.fixed, frozen_tensors(setup.module), {})
        book = ledger.create(folder.path, setup.mechanism, setup.noise_seed) if private(setup) else None
    facts["noise_seed"] = str(setup.noise_seed)
    save_state(folder.last, state, facts)
    promised = coverage.is_promised(setup.mechanism.description, setup.local_mechanism.description)
    with (
        _stop_on_signals() as stop,
        last_words(_lost_words(folder)) if uses_ray(config) else nullcontext(),
        choose_backend(setup, stop) as backend,
        tracker(
            folder,
            num_rounds=config.central_num_iterations,
            start_round=state.round,
            private=promised,
            wandb_project_id=config.wandb_project_id,
        ) as log,
    ):
        states = open_run_states(setup, folder.path, state.round)
        log.say(describe_setup(setup, folder))
        while state.round < config.central_num_iterations and not out_of_patience(config, facts, state.round):
            started, before = time.perf_counter(), state
            try:
                answers = who_answers(setup, state)
                state, cohort_sum = run_round(state, answers.cohort, setup=setup, backend=backend, states=states)
                if book is not None:
                    # Before any checkpoint: no round that was released can be missing from the ledger.
                    book = ledger.append(book, before.round, cohort_sum.cohort, before.mechanism_state)
                row = round_row(setup, state, cohort_sum, time.perf_counter() - started) | answers.row()
                # Its vectors would still be there while the next round trains.
                del cohort_sum
                last = state.round == config.central_num_iterations
                if last or state.round % config.evaluation_frequency == 0:
                    row |= evaluated(setup, state, backend)
            except (Interrupted, WorkerError) as error:
                # The ledger may be a round ahead of this checkpoint: the resumed run does that round again, alike.
                _checkpoint(folder, before, facts, states)
                raise _to_be_continued(error, folder, before.round) from error
            if "val/loss" in row and (facts["best"] is None or row[f"val/{config.best_metric}"] > facts["best"]):
                facts |= {"best": row[f"val/{config.best_metric}"], "best_round": state.round}
                save_tensors(folder.best, {"parameters": state.parameters}, facts_without_secrets(facts))
            state = setup.algorithm.observe(state, row)
            facts["seconds"] += time.perf_counter() - started
            log.log(row)
            setup.store.drop_pages()
            if "val/loss" in row:
                _checkpoint(folder, state, facts, states)
        try:
            summary = _summarise(setup, folder, state.round, facts, backend)
        except (Interrupted, WorkerError) as error:
            raise _to_be_continued(error, folder, state.round) from error
        log.say(
            f"test macro AP {summary['test']['macro_ap']:.4f} (best val round {facts['best_round']}); {folder.path}"
        )
    return folder.path


def who_answers(setup: Setup, state: ServerState) -> Participation:
    """The clients that a round is made of, out of those that are sampled for it."""
    asked = setup.sampler.sample(state.round)
    if not setup.algorithm.federated:
        return Participation(asked)
    return participate(
        asked,
        state.round,
        config=setup.config,
        dataset=setup.dataset,
        num_parameters=state.parameters.numel(),
        vectors_up=setup.algorithm.vectors_up,
        vectors_down=1 + sum(tensor.ndim > 0 for tensor in state.algorithm_state.values()),
    )


def out_of_patience(config: TrainConfig, facts: Mapping[str, Any], round_: int) -> bool:
    """Whether ``early_stopping_patience`` evaluations have passed without a better score."""
    patience = config.early_stopping_patience * config.evaluation_frequency
    return patience > 0 and facts["best"] is not None and round_ - facts["best_round"] >= patience


def private(setup: Setup) -> bool:
    """Whether the run's rounds have an epsilon, and so a ledger."""
    return ledger.is_due(setup.mechanism)


def round_row(setup: Setup, state: ServerState, cohort_sum: UpdateSum, seconds: float) -> dict[str, Any]:
    """The row of ``metrics.jsonl`` for the round that led to ``state``."""
    num_examples = cohort_sum.metrics.num_examples
    row: dict[str, Any] = {
        "round": state.round,
        "train/loss": cohort_sum.metrics.loss if num_examples else None,
        "train/num_clients": cohort_sum.cohort.num_clients if setup.algorithm.federated else 0,
        "train/num_examples": num_examples,
        "train/num_rejected": cohort_sum.cohort.num_rejected,
        "train/seconds": seconds,
        "train/images_per_second": num_examples / seconds,
    }
    for moment in ("before", "after"):
        averages: UserAverages = getattr(cohort_sum.metrics, moment)
        if averages.num_users:
            row |= prefixed(f"train_{moment}", averages.means())
    for name, tensor in state.algorithm_state.items():
        if tensor.ndim == 0 and tensor.isfinite():
            row[f"algorithm/{name}"] = tensor.item()
    if setup.mechanism.name != "none":
        row["privacy/num_clipped"] = cohort_sum.cohort.num_clipped
        row["privacy/clipping_bound"] = setup.mechanism.clipping_bound(state.mechanism_state)
        row["privacy/noise_std"] = setup.mechanism.noise_std(state.mechanism_state)
    return row


def evaluated(setup: Setup, state: ServerState, backend: Backend) -> dict[str, float]:
    """Columns of an evaluation: ``val/...``, and with ``val_cohort_size`` also ``val_federated/...``."""
    columns = prefixed("val", _score(setup, state.parameters, "val", backend).metrics())
    if setup.config.val_cohort_size:
        cohort = federated_evaluation(state.parameters, "val", state.round, setup=setup, backend=backend)
        columns |= prefixed("val_federated", cohort)
    return columns


def describe_setup(setup: Setup, folder: RunFolder) -> str:
    """What a run says of itself before it starts."""
    config, dataset = setup.config, setup.dataset
    num_parameters = sum(p.numel() for p in setup.module.parameters() if p.requires_grad)
    start = "pretrained" if config.pretrained else "from scratch"
    network = config.model_type if config.model == "multi_label_cnn" else config.model
    clients = (
        f"{len(dataset.client_ids):,} clients"
        if setup.algorithm.federated
        else f"{config.central_batch_size:,} images a step"
    )
    lines = [
        f"{config.setting}: {clients}, {dataset.partition.num_images:,} images, {setup.labels.num_labels} labels",
        f"{network} {start}, {num_parameters:,} parameters, {config.image_size} px, {setup.device}",
    ]
    for mechanism in (setup.mechanism, setup.local_mechanism):
        if mechanism.description.get("words"):
            lines.append(str(mechanism.description["words"]))
    if setup.algorithm.keeps_client_state:
        lines.append(describe_states(setup))
    return "\n".join([*lines, f"run folder: {folder.path}"])


def _checkpoint(folder: RunFolder, state: ServerState, facts: Mapping[str, Any], states: ClientStates) -> None:
    states.save(state.round)
    save_state(folder.last, state, facts)
    states.prune(state.round)


def prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def facts_without_secrets(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "noise_seed"}


def _to_be_continued(error: FedflairError, folder: RunFolder, round_: int) -> FedflairError:
    """The error that ends the run, with how to go on from the checkpoint of ``round_``."""
    why = "" if isinstance(error, Interrupted) else f"{error}; "
    return type(error)(f"{why}stopped after round {round_}; {_continue_words(folder)}")


def _lost_words(folder: RunFolder) -> str:
    what = (
        "the run's process ended at once: killed, out of memory, or Ray's own process of this machine (raylet) was lost"
    )
    return f"fedflair: {what}; {_continue_words(folder)}"


def _continue_words(folder: RunFolder) -> str:
    return f"continue with: fedflair train --resume --run {folder.path}"


def _score(setup: Setup, parameters: torch.Tensor, partition: str, backend: Backend) -> Scores:
    return score_partition(parameters, partition, setup=setup, backend=backend)


def _summarise(
    setup: Setup, folder: RunFolder, num_rounds: int, facts: dict[str, Any], backend: Backend
) -> dict[str, Any]:
    best = load_tensors(folder.best)[0]["parameters"].to(setup.device)
    test = _score(setup, best, "test", backend).measured()
    write_atomically(folder.label_ap, json.dumps(test.label_ap_by_name(setup.labels.names)) + "\n")
    privacy, local_privacy = dict(setup.mechanism.description), dict(setup.local_mechanism.description)
    summary = {
        "setting": setup.config.setting,
        "rounds": num_rounds,
        "best_round": facts["best_round"],
        "seconds": facts["seconds"],
        "val": _score(setup, best, "val", backend).metrics(),
        "test": test.values(),
        coverage.FIELD: coverage.SUMMARY if coverage.is_promised(privacy, local_privacy) else None,
        "privacy": privacy or None,
        "local_privacy": local_privacy or None,
        "device": str(setup.device),
        "version": __version__,
    }
    write_atomically(folder.summary, json.dumps(summary, indent=2) + "\n")
    return summary


def _run_to_resume(config: TrainConfig) -> RunFolder:
    if config.run is None:
        raise ConfigError("resume: name the run's folder with --run")
    folder = RunFolder(config.run)
    if not folder.last.is_file():
        raise DataError(f"{folder.last}: no checkpoint to resume from; remove {folder.path} and start the run again")
    for place in (folder.path, folder.last.parent):
        sweep(place)
    return folder


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process the usual way."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Callable[..., Any] | int | None] = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])
        os.write(2, b"\nstopping after the clients at work; press again to stop at once\n")

    for number in signals:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number in signals:
            signal.signal(number, before[number])
