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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedflair import __version__
from fedflair.aggregate import TreeSum, UpdateSum, cohort_groups
from fedflair.algorithms import ALGORITHMS, Algorithm
from fedflair.allocator import keep_freed_memory
from fedflair.backends import Backend, thread_backend
from fedflair.checkpoint import load_state, load_tensors, save_state, save_tensors
from fedflair.config import TrainConfig
from fedflair.data.federated import FederatedDataset, iid_users, natural_users
from fedflair.data.store import Store, open_store
from fedflair.errors import ConfigError, DataError, Interrupted
from fedflair.evaluate import Scores, score_partition
from fedflair.models import MODELS
from fedflair.models.flat import FlatModel, flatten
from fedflair.models.multi_label_cnn import imagenet_weights
from fedflair.privacy import Mechanism, PrivacyOptions, ledger, make_mechanism
from fedflair.sampling import SAMPLERS, CohortSampler, stream
from fedflair.server import SERVER_OPTIMIZERS, ServerState
from fedflair.tracking import RunFolder, create_run, tracker, write_atomically


@dataclass(frozen=True)
class Setup:
    """What stays the same over a run."""

    config: TrainConfig
    store: Store
    dataset: FederatedDataset
    sampler: CohortSampler
    algorithm: Algorithm
    mechanism: Mechanism
    module: nn.Module
    device: torch.device
    noise_seed: int


def run_round(
    state: ServerState,
    cohort: list[str],
    *,
    setup: Setup,
    backend: Backend,
    stop: threading.Event | None = None,
) -> tuple[ServerState, UpdateSum]:
    """One round from ``state`` with the clients of ``cohort``: (next state, sum over the cohort before noise).

    Without a central mechanism the sum is divided by the sum of weights; with one, by the expected cohort size, since
    the realised one is not public. Raises Interrupted between two clients when ``stop`` is set.
    """
    config, dataset, mechanism = setup.config, setup.dataset, setup.mechanism
    bound = mechanism.clipping_bound(state.mechanism_state)

    def train_group(model: FlatModel, group: list[str]) -> UpdateSum:
        partial = UpdateSum()
        for client_id in group:
            if stop is not None and stop.is_set():
                raise Interrupted("stopped")
            generator = stream(config.seed, "client", state.round, client_id)
            client = dataset.load(client_id, config.max_num_user_images, generator)
            update = setup.algorithm.client_update(model, state.parameters, state.algorithm_state, client, generator)
            partial = partial.add_client(update, mechanism.clip(update.delta, bound))
        return partial

    groups = cohort_groups(cohort, dataset.num_images)
    tree = TreeSum(len(groups))
    for index, partial in backend.map_unordered(train_group, groups):
        tree.add(index, partial)
    cohort_sum = tree.total
    total = torch.zeros_like(state.parameters) if cohort_sum.delta is None else cohort_sum.delta
    if mechanism.name == "none":
        divisor = cohort_sum.weight or 1.0
    else:
        divisor = float(setup.sampler.description.cohort_size)
        total, mechanism_state = mechanism.add_noise(total, cohort_sum.cohort, state.round, state.mechanism_state)
        state = replace(state, mechanism_state=mechanism_state)
    return setup.algorithm.server_update(state, total / divisor), cohort_sum


def train(config: TrainConfig) -> Path:
    """Trains as configured and returns the run folder; see ``tracking.py`` for what it holds then.

    Raises Interrupted after writing a checkpoint when the process gets SIGINT or SIGTERM.
    """
    keep_freed_memory()
    if config.resume:
        folder = _run_to_resume(config)
        facts = load_tensors(folder.last)[1]
        setup = make_setup(config, noise_seed=int(facts["noise_seed"]))
        state, facts = load_state(folder.last, setup.device)
        book = ledger.resume(folder.path, state.round, setup.mechanism, setup.noise_seed) if private(setup) else None
    else:
        setup = make_setup(config, noise_seed=config.seed if config.noise_from_seed else secrets.randbits(128))
        state, facts = initial_state(setup), {"best": None, "best_round": 0, "seconds": 0.0}
        folder = create_run(config)
        save_tensors(folder.fixed, flatten(setup.module, setup.device).frozen_tensors(), {})
        book = ledger.create(folder.path, setup.mechanism, setup.noise_seed) if private(setup) else None
    facts["noise_seed"] = str(setup.noise_seed)
    with (
        thread_backend(setup.module, setup.device, config.num_threads) as backend,
        tracker(folder, num_rounds=config.central_num_iterations, start_round=state.round) as log,
        _stop_on_signals() as stop,
    ):
        log.say(describe_setup(setup, folder))
        save_state(folder.last, state, facts)
        while state.round < config.central_num_iterations:
            started = time.perf_counter()
            cohort, before = setup.sampler.sample(state.round), state
            try:
                state, cohort_sum = run_round(state, cohort, setup=setup, backend=backend, stop=stop)
            except Interrupted as error:
                save_state(folder.last, state, facts)
                raise Interrupted(
                    f"stopped after round {state.round}; continue with: fedflair train --resume --run {folder.path}"
                ) from error
            if book is not None:
                # Before any checkpoint: no round that was released can be missing from the ledger.
                book = ledger.append(book, before.round, cohort_sum.cohort, before.mechanism_state)
            row = round_row(setup, state, cohort_sum, time.perf_counter() - started)
            last = state.round == config.central_num_iterations
            if last or state.round % config.evaluation_frequency == 0:
                row |= prefixed("val", _score(setup, state.parameters, "val", backend).metrics())
                if facts["best"] is None or row[f"val/{config.best_metric}"] > facts["best"]:
                    facts |= {"best": row[f"val/{config.best_metric}"], "best_round": state.round}
                    save_tensors(folder.best, {"parameters": state.parameters}, facts_without_secrets(facts))
            facts["seconds"] += time.perf_counter() - started
            log.log(row)
            if "val/loss" in row:
                save_state(folder.last, state, facts)
        summary = _summarise(setup, folder, facts, backend)
        log.say(
            f"test macro AP {summary['test']['macro_ap']:.4f} (best val round {facts['best_round']}); {folder.path}"
        )
    return folder.path


def private(setup: Setup) -> bool:
    """Whether the run's rounds have an epsilon, and so a ledger."""
    return ledger.is_due(setup.mechanism)


def make_setup(config: TrainConfig, noise_seed: int) -> Setup:
    """Opens the data and builds the model, the sampler, the algorithm and the mechanism."""
    store = open_store(config.data_path)
    for name in ("train", "val", "test"):
        if name not in store.partitions or store.partitions[name].num_images == 0:
            raise DataError(f"{store.path}: partition {name!r} is empty; training needs train, val and test images")
    fine = config.use_fine_grained_labels
    if config.dataset == "flair_iid":
        mean, distribution = config.mean_datapoints_per_user, config.datapoints_per_user_distribution
        dataset = iid_users(
            store, "train", fine=fine, mean_num_images=mean, distribution=distribution, seed=config.seed
        )
    else:
        dataset = natural_users(store, "train", fine=fine)
    if config.cohort_size > len(dataset.client_ids):
        raise ConfigError(
            f"cohort_size: {config.cohort_size} is more than the {len(dataset.client_ids)} training clients of "
            f"{store.path}; lower it"
        )
    sampler = SAMPLERS[config.sampling](dataset.client_ids, config.cohort_size, config.seed)
    mechanism = make_mechanism(privacy_options(config), sampler.description, config.central_num_iterations, noise_seed)
    weights = imagenet_weights(config.model_type, config.pretrained_weights) if config.pretrained else None
    module = MODELS[config.model](
        config.model_type, dataset.num_labels, pretrained=config.pretrained, weights=weights, seed=config.seed
    )
    algorithm = ALGORITHMS[config.algorithm_name](config)
    return Setup(config, store, dataset, sampler, algorithm, mechanism, module, config.torch_device(), noise_seed)


def privacy_options(config: TrainConfig) -> PrivacyOptions:
    """The central mechanism's options, under their configuration names."""
    return PrivacyOptions(
        mechanism=config.central_privacy_mechanism,
        epsilon=config.central_epsilon,
        delta=config.central_delta,
        clipping_bound=config.central_privacy_clipping_bound,
        order=config.central_order,
        population=config.population,
        noise_cohort_size=config.noise_cohort_size,
        accountant=config.accountant,
        allow_large_delta=config.allow_large_delta,
        noise_from_seed=config.noise_from_seed,
        artificial_users=config.dataset == "flair_iid",
    )


def initial_state(setup: Setup) -> ServerState:
    """The state before round 0."""
    parameters = flatten(setup.module, setup.device).parameters.clone()
    return ServerState(
        round=0,
        parameters=parameters,
        optimizer_state=SERVER_OPTIMIZERS[setup.config.central_optimizer](setup.config).init(parameters),
        algorithm_state=setup.algorithm.init(parameters),
        mechanism_state=setup.mechanism.init(parameters.numel()),
    )


def round_row(setup: Setup, state: ServerState, cohort_sum: UpdateSum, seconds: float) -> dict[str, Any]:
    """The row of ``metrics.jsonl`` for the round that led to ``state``."""
    num_examples = cohort_sum.metrics.num_examples
    row: dict[str, Any] = {
        "round": state.round,
        "train/loss": cohort_sum.metrics.loss if num_examples else None,
        "train/num_clients": cohort_sum.cohort.num_clients,
        "train/num_examples": num_examples,
        "train/seconds": seconds,
        "train/images_per_second": num_examples / seconds,
    }
    if setup.mechanism.name != "none":
        row["privacy/num_clipped"] = cohort_sum.cohort.num_clipped
        row["privacy/num_rejected"] = cohort_sum.cohort.num_rejected
        row["privacy/clipping_bound"] = setup.mechanism.clipping_bound(state.mechanism_state)
        row["privacy/noise_std"] = setup.mechanism.noise_std(state.mechanism_state)
    return row


def describe_setup(setup: Setup, folder: RunFolder) -> str:
    """What a run says of itself before it starts."""
    config, dataset = setup.config, setup.dataset
    num_parameters = sum(p.numel() for p in setup.module.parameters() if p.requires_grad)
    start = "pretrained" if config.pretrained else "from scratch"
    network = config.model_type if config.model == "multi_label_cnn" else config.model
    lines = [
        f"{config.setting}: {len(dataset.client_ids):,} clients, {dataset.partition.num_images:,} images, "
        f"{dataset.num_labels} labels",
        f"{network} {start}, {num_parameters:,} parameters, {config.image_size} px, {setup.device}",
    ]
    privacy = setup.mechanism.description
    if privacy.get("words"):
        lines.append(str(privacy["words"]))
    return "\n".join([*lines, f"run folder: {folder.path}"])


def prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def facts_without_secrets(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "noise_seed"}


def _score(setup: Setup, parameters: torch.Tensor, partition: str, backend: Backend) -> Scores:
    return score_partition(
        parameters,
        setup.store.partitions[partition],
        backend=backend,
        num_labels=setup.dataset.num_labels,
        fine=setup.dataset.fine,
        image_size=setup.config.image_size,
        batch_size=setup.config.central_eval_batch_size,
    )


def _summarise(setup: Setup, folder: RunFolder, facts: dict[str, Any], backend: Backend) -> dict[str, Any]:
    best = load_tensors(folder.best)[0]["parameters"].to(setup.device)
    privacy = dict(setup.mechanism.description)
    summary = {
        "setting": setup.config.setting,
        "rounds": setup.config.central_num_iterations,
        "best_round": facts["best_round"],
        "seconds": facts["seconds"],
        "val": _score(setup, best, "val", backend).metrics(),
        "test": _score(setup, best, "test", backend).metrics(),
        "privacy": privacy or None,
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
        raise DataError(f"{folder.last}: no checkpoint to resume from; start the run without --resume")
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
