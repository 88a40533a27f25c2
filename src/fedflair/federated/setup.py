"""What stays the same over a run, built from its configuration: for an evaluation, for a worker, for a whole run.

Each has what it needs and no more: an evaluation knows no clients, a worker neither cohorts nor the central noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.central import central_batches
from fedflair.data.clients.federated import (
    Clients,
    FederatedDataset,
    fresh_iid_users,
    iid_users,
    images_per_person,
    natural_users,
)
from fedflair.data.store.features import Features
from fedflair.data.store.labels import LabelSpace, label_space, named_labels
from fedflair.data.store.packed import Store, open_store
from fedflair.engine.cpu.choice import Kind, Precision
from fedflair.engine.cpu.kernels import chosen
from fedflair.engine.flat_model import parameter_vector
from fedflair.errors import ConfigError, DataError
from fedflair.federated.algorithms import ALGORITHMS, Algorithm
from fedflair.federated.frozen_features import OnFeatures, on_features, opened
from fedflair.federated.networks import build_model, own_code, untrained_model
from fedflair.federated.participation import num_asked
from fedflair.federated.plugins import load_plugins
from fedflair.federated.privacy_options import local_privacy_options, parameter_groups, privacy_options
from fedflair.federated.server import SERVER_OPTIMIZERS, ServerState
from fedflair.federated.start import Start, origin_of
from fedflair.models.checks import check_network
from fedflair.models.preprocessing import preprocessing_of
from fedflair.privacy.contract import Clipping, LocalMechanism, Mechanism, Origin, ParameterGroups
from fedflair.privacy.mechanisms import local_noise_seed, make_local_mechanism
from fedflair.privacy.mechanisms.group_clipping import clipping_in
from fedflair.privacy.mechanisms.private_metrics import measure_with, split_of
from fedflair.privacy.path import make_path, mechanism_and_sampling
from fedflair.sampling import CohortSampler, SamplerDescription

Examples = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationSetup:
    """What scoring images takes: a network, and a store with the labels that it learned.

    kernels: what a CPU computes with, in every process of the run.
    on_features: where the head alone trains on features that are kept; None where images are what comes in.
    """

    config: TrainConfig
    store: Store
    labels: LabelSpace
    module: nn.Module
    device: torch.device
    kernels: Kind
    on_features: OnFeatures | None = field(default=None, kw_only=True)

    @property
    def network(self) -> nn.Module:
        """What a worker runs: the module, or the part of it that is not computed once and for all."""
        return self.module if self.on_features is None else self.on_features.network

    @property
    def precision(self) -> Precision:
        """Of what a worker runs: a head on features is all memory and no arithmetic, and always float32."""
        return "fp32" if self.on_features is not None and self.on_features.tables else self.config.hardware.precision

    def examples(self, partition: str, images: range) -> Examples:
        """What ``network`` is given of these images of a partition: encoded, or their features float32 [n, D]."""
        if self.on_features is not None and self.on_features.tables:
            return self.on_features.tables[partition].of(images)
        source = self.store.partitions[partition]
        return [source.encoded(image) for image in images]


@dataclass(frozen=True)
class WorkerSetup(EvaluationSetup):
    """What training clients takes as well, in whatever process: nothing of it says who is drawn, or what the noise is.

    clients: what cohorts are drawn from. local_mechanism: the clients' own; its seed is a secret of the workers.
    clipping: the central mechanism's, to the bound that a worker is sent.
    """

    clients: Clients
    algorithm: Algorithm
    local_mechanism: LocalMechanism
    clipping: Clipping


@dataclass(frozen=True)
class TrainingSetup:
    """What a run takes: its workers' set-up, and what they must not know.

    sampler: of the cohorts, which are secret in private runs. mechanism: what makes a cohort's sum private.
    noise_seed: of the mechanism's noise and of private cohorts; secret in private runs.
    """

    worker: WorkerSetup
    sampler: CohortSampler
    mechanism: Mechanism
    noise_seed: int

    @property
    def config(self) -> TrainConfig:
        return self.worker.config


def make_setup(
    config: TrainConfig,
    noise_seed: int,
    fixed: Mapping[str, torch.Tensor] | None = None,
    kernels: Kind | None = None,
    start: Start | None = None,
) -> TrainingSetup:
    """Opens the data and builds the model, the sampler, the algorithm and the mechanisms.

    fixed: what the model of a run that goes on needs beside its trained parameters; None is a run that starts, whose
        initial weights are loaded.
    kernels: what a run that goes on computes with; None is what this machine chooses.
    start: the model that it starts from, or started from.
    Raises DataError for a store that cannot be trained on, ConfigError and PrivacyError for options that do not fit it.
    """
    load_plugins(config)
    store = open_store(config.data.data_path)
    for name in ("train", "val", "test"):
        if name not in store.partitions or store.partitions[name].num_images == 0:
            raise DataError(f"{store.path}: partition {name!r} is empty; training needs train, val and test images")
    labels = labels_of(config, store)
    if start is not None and fixed is None:
        start.check_labels(labels.names)
    origin = origin_of(None if start is None else start.record, store.fingerprint)
    dataset = training_clients(config, store, labels)
    num_clients = len(dataset.client_ids)
    algorithm = ALGORITHMS[config.algorithm.algorithm_name](config, num_clients)
    asked = num_asked(config) if algorithm.federated else 1
    if asked > num_clients:
        named = f"{asked} with over_selection" if config.cohort.over_selection > 0 else str(asked)
        raise ConfigError(
            f"cohort_size: {named} is more than the {num_clients} training clients of {store.path}; lower it"
        )
    path = make_path(
        privacy_options(config, images_per_person(store, "train"), groups_of(config, labels.num_labels), origin),
        dataset.client_ids,
        sampling=config.sampling,
        cohort_size=asked,
        num_rounds=config.algorithm.central_num_iterations,
        seed=config.run.seed,
        noise_seed=noise_seed,
    )
    local_mechanism = make_local_mechanism(
        local_privacy_options(config, origin),
        path.sampler.description,
        config.algorithm.central_num_iterations,
        local_noise_seed(noise_seed),
    )
    module = (
        build_model(config, labels.num_labels, start=start)
        if fixed is None
        else untrained_model(config, labels.num_labels, fixed)
    )
    check_network(
        module, config.model.model_type, config.data.image_size or preprocessing_of(module).size, labels.num_labels
    )
    clients, sampler = dataset, path.sampler
    if not algorithm.federated:
        clients, sampler = pieces_of_batches(config, dataset)
    kernels, device = kernels_of(config, kernels), config.hardware.torch_device()
    worker = WorkerSetup(
        config=config,
        store=store,
        labels=labels,
        module=module,
        device=device,
        kernels=kernels,
        clients=clients,
        algorithm=algorithm,
        local_mechanism=local_mechanism,
        clipping=path.mechanism.clipping,
        on_features=on_features(config, store, module, kernels, device, own_code(config)),
    )
    return TrainingSetup(worker, sampler, path.mechanism, noise_seed)


def groups_of(config: TrainConfig, num_labels: int) -> ParameterGroups | None:
    """The groups of parameters that a run with that many labels clips apart; None where it has none."""
    if config.central_privacy.clipping_groups == "none" or not config.central_privacy.adaptive_clipping:
        return None
    load_plugins(config)
    return parameter_groups(config, untrained_model(config, num_labels, {}))


def mechanisms_of(
    config: TrainConfig,
    num_clients: int,
    noise_seed: int,
    images: tuple[float, int] | None = None,
    groups: ParameterGroups | None = None,
    origin: Origin | None = None,
) -> tuple[Mechanism, LocalMechanism]:
    """The central and the local mechanism of a run over that many clients, as ``make_setup`` makes them, without data.

    groups: as of ``groups_of``.
    Raises ConfigError and PrivacyError for options that there is no mechanism for.
    """
    load_plugins(config)
    asked, num_rounds = num_asked(config), config.algorithm.central_num_iterations
    central, kind = mechanism_and_sampling(
        privacy_options(config, images, groups, origin), config.sampling, asked, num_clients, num_rounds, noise_seed
    )
    cohorts = SamplerDescription(kind, asked, num_clients)
    return central, make_local_mechanism(
        local_privacy_options(config, origin), cohorts, num_rounds, local_noise_seed(noise_seed)
    )


def make_worker_setup(
    config: TrainConfig,
    clip_order: float,
    local_seed: int,
    fixed: Mapping[str, torch.Tensor],
    fingerprint: str,
    kernels: Kind,
    features: Mapping[str, str] | None = None,
) -> WorkerSetup:
    """As ``make_setup``, for a process that trains clients and scores images for another one; nothing is calibrated.

    clip_order: of the norm that the central mechanism clips. local_seed: of the clients' own noise.
    fixed: what the model needs beside its trained parameters, so that no weights are fetched.
    fingerprint: of the run's store. Raises DataError where another one is in its place.
    features: digests of those that the head is trained on; none while they are computed, None where images come in.
    """
    load_plugins(config)
    store = open_store(config.data.data_path)
    if store.fingerprint != fingerprint:
        raise DataError(
            f"{store.path}: not the store that the run began with (its content differs here); put that one back"
        )
    labels = labels_of(config, store)
    dataset = training_clients(config, store, labels)
    num_clients = len(dataset.client_ids)
    algorithm = ALGORITHMS[config.algorithm.algorithm_name](config, num_clients)
    # What a client does to its own update does not depend on how it was drawn, which is for the driver to know.
    cohorts = SamplerDescription("poisson", num_asked(config), num_clients)
    module, device = untrained_model(config, labels.num_labels, fixed), config.hardware.torch_device()
    setup = WorkerSetup(
        config=config,
        store=store,
        labels=labels,
        module=module,
        device=device,
        kernels=kernels,
        clients=dataset if algorithm.federated else pieces_of_batches(config, dataset)[0],
        algorithm=algorithm,
        local_mechanism=make_local_mechanism(
            local_privacy_options(config), cohorts, config.algorithm.central_num_iterations, local_seed
        ),
        clipping=clipping_in(
            config.central_privacy.central_privacy_mechanism,
            clip_order,
            config.cohort.cohort_size,
            measure_with(split_of(privacy_options(config)), config.cohort.cohort_size),
            parameter_groups(config, module),
        ),
    )
    if features is None:
        return setup
    found = on_features(config, store, module, kernels, device, own_code(config))
    if found is None:
        raise DataError(f"{store.path}: this machine's network has no features; install the same versions on each")
    return with_tables(replace(setup, on_features=found), opened(found, store, features))


def with_tables(setup: WorkerSetup, tables: Mapping[str, Features]) -> WorkerSetup:
    """The set-up whose head trains on these features, by partition."""
    if setup.on_features is None or not tables:
        return setup
    clients = setup.clients
    if isinstance(clients, FederatedDataset):
        clients = replace(clients, features=tables[clients.partition.name])
    return replace(setup, on_features=replace(setup.on_features, tables=tables), clients=clients)


def make_evaluation_setup(
    config: TrainConfig,
    partition: str,
    fixed: Mapping[str, torch.Tensor],
    labels: Sequence[str] | None = None,
    kernels: Kind | None = None,
) -> EvaluationSetup:
    """What scoring one partition takes.

    fixed: what the model needs beside its trained parameters, as the run folder has it; no weights are fetched.
    labels: the model's, in the order of its outputs, which the store may have in another order; None is the store's
        own. Raises DataError where the store has others.
    kernels: what the run computed with; None is what this machine chooses.
    """
    load_plugins(config)
    store = open_store(config.data.data_path)
    if partition not in store.partitions or store.partitions[partition].num_images == 0:
        raise DataError(f"{store.path}: partition {partition!r} is empty; choose another with --partition")
    everything = config.data.label_subset is None and config.data.binary_label is None
    space = (
        labels_of(config, store)
        if labels is None
        else named_labels(store, labels, fine=config.data.use_fine_grained_labels, all_of_them=everything)
    )
    module, device = untrained_model(config, space.num_labels, fixed), config.hardware.torch_device()
    return EvaluationSetup(config, store, space, module, device, kernels_of(config, kernels))


def kernels_of(config: TrainConfig, kernels: Kind | None) -> Kind:
    """``kernels``, or what this machine chooses; on a GPU there are none."""
    if config.hardware.torch_device().type != "cpu":
        return "none"
    return kernels or chosen().kind


def labels_of(config: TrainConfig, store: Store) -> LabelSpace:
    """The labels that the configuration's model learns."""
    return label_space(
        store,
        fine=config.data.use_fine_grained_labels,
        subset=config.data.label_subset,
        binary_label=config.data.binary_label,
    )


def training_clients(config: TrainConfig, store: Store, labels: LabelSpace) -> FederatedDataset:
    """The clients that cohorts are drawn from."""
    if config.data.dataset == "flair":
        return natural_users(store, "train", labels, min_num_images=config.data.minimum_num_datapoints_per_user)
    mean, distribution = config.data.mean_datapoints_per_user, config.data.datapoints_per_user_distribution
    if config.algorithm.like == "pfl":
        return fresh_iid_users(store, "train", labels, mean_num_images=mean, distribution=distribution)
    return iid_users(store, "train", labels, mean_num_images=mean, distribution=distribution, seed=config.run.seed)


def pieces_of_batches(config: TrainConfig, clients: FederatedDataset) -> tuple[FederatedDataset, CohortSampler]:
    """What stands in for clients, and who is drawn, in centralised training."""
    return central_batches(
        clients,
        batch_size=config.algorithm.central_batch_size,
        piece_size=config.batch_size,
        num_rounds=config.algorithm.central_num_iterations,
        seed=config.run.seed,
    )


def initial_state(setup: TrainingSetup) -> ServerState:
    """The state before round 0."""
    parameters, server = parameter_vector(setup.worker.module, setup.worker.device), setup.config.server
    return ServerState(
        round=0,
        parameters=parameters,
        optimizer_state=SERVER_OPTIMIZERS[server.central_optimizer](server).init(parameters),
        algorithm_state=setup.worker.algorithm.init(parameters),
        mechanism_state=setup.mechanism.init(parameters.numel()),
    )
