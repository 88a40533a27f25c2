"""A whole run of pfl-research with its own randomness: users, images, crops, noise and order as in its FLAIR script.

Its model is scored by fedflair, after the same numbers of updates, so that both curves are of the same metric.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from peers.files import MAX_NUM_USER_IMAGES, read_user
from peers.network import PeerNetwork
from peers.task import Task
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import ArtificialFederatedDataset, FederatedDataset
from pfl.data.sampling import get_data_sampler, get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
from torch.optim.lr_scheduler import LambdaLR

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.engine.flat_model import parameter_vector
from fedflair.evaluation.partition import score_partition
from fedflair.federated.setup import TrainingSetup, make_setup
from pfl_parity.theirs import OPTIMIZERS, rate_share


def run(config: TrainConfig, path: Path, tell: Callable[[dict[str, float]], None]) -> None:
    """Trains as configured on the users in pfl's layout, and tells each evaluation."""
    torch.manual_seed(config.run.seed)
    np.random.seed(config.run.seed)
    setup = make_setup(config, noise_seed=0)
    num_labels = setup.worker.labels.num_labels
    size = config.data.image_size
    assert size is not None
    task = Task(setup.worker.store.path, path, num_labels, len(setup.worker.clients.client_ids), image_size=size)
    network = PeerNetwork(task)
    # Weights of its own for each seed, from the distribution that fedflair draws from.
    network.network.load_state_dict(setup.worker.module.state_dict())
    optimizer = OPTIMIZERS[config.server.central_optimizer](network.parameters(), config)
    model = PyTorchModel(
        network, torch.optim.SGD, optimizer, LambdaLR(optimizer, lambda step: rate_share(config, step))
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=config.algorithm.central_num_iterations,
            evaluation_frequency=10**6,
            train_cohort_size=config.cohort.cohort_size,
            val_cohort_size=0,
        ),
        SimulatedBackend(_users(config, path, num_labels), None, _postprocessors(config)),
        model,
        NNTrainHyperParams(
            local_num_epochs=config.local.local_num_epochs,
            local_learning_rate=config.local.local_learning_rate,
            local_batch_size=config.local.local_batch_size,
            local_max_grad_norm=config.local.local_max_grad_norm,
        ),
        NNEvalHyperParams(local_batch_size=None),
        [_Scores(setup, network, tell)],
        send_metrics_to_platform=False,
    )


class _Scores(TrainingProcessCallback):  # type: ignore[misc]  # pfl has no types
    def __init__(self, setup: TrainingSetup, network: PeerNetwork, tell: Callable[[dict[str, float]], None]) -> None:
        self.setup, self.network, self.tell, self.round = setup, network, tell, 0

    def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
        self.round += 1
        if self.round % self.setup.config.evaluation.evaluation_frequency == 0:
            parameters = parameter_vector(self.network.network, self.setup.worker.device)
            with thread_backend(self.setup.worker) as backend:
                metrics = score_partition(parameters, "val", setup=self.setup.worker, backend=backend).metrics()
            self.tell({"round": self.round, "macro_ap": metrics["macro_ap"], "loss": metrics["loss"]})
        return False, Metrics()


def _users(config: TrainConfig, path: Path, num_labels: int) -> Any:
    """Natural users drawn with replacement, or artificial ones whose images are drawn anew each time."""
    with h5py.File(path, "r") as file:
        names = list(file["train"])
    if config.data.dataset == "flair_iid":
        parts = [read_user(path, "train", name, num_labels, max_num_images=None) for name in names]
        whole = [np.concatenate([part[k].numpy() for part in parts]) for k in (0, 1)]
        mean = config.data.mean_datapoints_per_user
        return ArtificialFederatedDataset.from_slices(
            whole,
            get_data_sampler("random", len(whole[0])),
            lambda: int(mean),
            lambda data: Dataset([torch.from_numpy(array) for array in data]),
        )

    def load(name: str) -> Dataset:
        return Dataset(list(read_user(path, "train", name, num_labels, MAX_NUM_USER_IMAGES)), user_id=name)

    return FederatedDataset(load, get_user_sampler("random", names))


def _postprocessors(config: TrainConfig) -> list[Any]:
    """The mechanism, calibrated by pfl's own accountant."""
    options = config.central_privacy
    if options.central_privacy_mechanism == "none":
        return []
    assert options.noise_cohort_size is not None and options.population is not None
    accountant = PLDPrivacyAccountant(
        num_compositions=config.algorithm.central_num_iterations,
        sampling_probability=options.noise_cohort_size / options.population,
        mechanism="gaussian",
        epsilon=options.central_epsilon,
        delta=options.central_delta,
        noise_scale=config.cohort.cohort_size / options.noise_cohort_size,
    )
    mechanism = GaussianMechanism.from_privacy_accountant(
        accountant=accountant, clipping_bound=options.central_privacy_clipping_bound
    )
    return [CentrallyAppliedPrivacyMechanism(mechanism)]
