"""pfl-research's rounds (its package, 0.6), driven as its FLAIR script drives it, from fedflair's options."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams, PersonalizedNNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.algorithm.fedprox import AdaptMuOnMetricCallback, FedProx, FedProxParams
from pfl.algorithm.reptile import Reptile
from pfl.algorithm.scaffold import SCAFFOLD, SCAFFOLDParams
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.data.user_state import DiskUserStateStorage
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.bridge.pytorch.scaffold import PyTorchSCAFFOLDBridge
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism, NormClippingOnly
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR

from fedflair.config.train_config import TrainConfig
from fedflair.data.images.crops import eval_inputs
from fedflair.sampling import stream
from pfl_parity.cases import NUM_ROUNDS
from pfl_parity.own import Tensors, normals

Optimizer = Callable[[Any, TrainConfig], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda p, config: torch.optim.SGD(p, config.server.learning_rate),
    "avgm": lambda p, config: torch.optim.SGD(p, config.server.learning_rate, momentum=config.server.adam_beta1),
    "adam": lambda p, config: torch.optim.AdamW(
        p,
        config.server.learning_rate,
        betas=(config.server.adam_beta1, config.server.adam_beta2),
        eps=config.server.adaptivity_degree,
        weight_decay=0.0,
    ),
}


class Network(nn.Module):
    """What pfl trains: takes uint8 [n, H, W, 3] as it lies in its file."""

    def __init__(self, inner: nn.Module, image_size: int) -> None:
        super().__init__()
        self.inner, self.image_size = inner, image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(eval_inputs(images.permute(0, 3, 1, 2), self.image_size))
        return logits

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(self(images), targets)

    @torch.no_grad()
    def metrics(self, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        loss = binary_cross_entropy_with_logits(self(images), targets)
        return {"macro loss": Weighted(float(loss) * len(images), len(images))}


class WholeDataset(Dataset):  # type: ignore[misc]  # pfl has no types
    """Reptile trains on a part of a user and evaluates on the rest; here both are the whole."""

    def split(self, *_: Any) -> tuple[Dataset, Dataset]:
        return self, self


def solve(config: TrainConfig, noise_std: float, path: Path, num_labels: int, network: nn.Module) -> Tensors:
    """Parameters by name after the rounds.

    noise_std: on each entry of a sum. path: the users in pfl's layout. network: with its initial values.
    """
    size = config.data.image_size
    assert size is not None
    module = Network(copy.deepcopy(network), size)
    optimizer = OPTIMIZERS[config.server.central_optimizer](module.parameters(), config)
    model = PyTorchModel(module, torch.optim.SGD, optimizer, LambdaLR(optimizer, lambda k: rate_share(config, k)))
    users = _Users(path, num_labels, config.run.seed)
    training = NNTrainHyperParams(
        local_num_epochs=config.local.local_num_epochs,
        local_learning_rate=config.local.local_learning_rate,
        local_batch_size=config.local.local_batch_size,
        local_max_grad_norm=config.local.local_max_grad_norm,
    )
    evaluation = CentralEvaluationCallback(users.all_of("val"), NNEvalHyperParams(local_batch_size=None), frequency=1)
    with _noise(module.inner), tempfile.TemporaryDirectory() as folder, _sign_of_scaffold(), _states_are_trusted():
        algorithm, parameters, further = _algorithm(config, len(users.names), Path(folder))
        data = FederatedDataset(users.load, get_user_sampler("minimize_reuse", users.names))
        algorithm.run(
            parameters(
                central_num_iterations=NUM_ROUNDS,
                evaluation_frequency=100,
                train_cohort_size=len(users.names),
                val_cohort_size=0,
            ),
            SimulatedBackend(data, data, _postprocessors(config, noise_std)),
            model,
            training,
            NNEvalHyperParams(local_batch_size=None),
            [evaluation, *further, users],
            send_metrics_to_platform=False,
        )
    return {name: parameter.detach().clone() for name, parameter in module.inner.named_parameters()}


class _Users(TrainingProcessCallback):  # type: ignore[misc]  # pfl has no types
    """The file's users, the images of each in the order in which fedflair draws them in that round."""

    def __init__(self, path: Path, num_labels: int, seed: int) -> None:
        self.path, self.num_labels, self.seed, self.round = path, num_labels, seed, 0
        with h5py.File(path, "r") as file:
            self.names = sorted(file["train"])

    def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
        self.round += 1
        return False, Metrics()

    def load(self, name: str) -> Dataset:
        pixels, targets = self._read("train", name)
        generator = stream(self.seed, "client", self.round, name)
        # Of what fedflair draws for a client, dropout comes before the order.
        generator.integers(2**62)
        order = generator.permutation(len(pixels))
        return WholeDataset(raw_data=[pixels[order], targets[order]], user_id=name)

    def all_of(self, partition: str) -> Dataset:
        with h5py.File(self.path, "r") as file:
            parts = [self._read(partition, name) for name in file[partition]]
        return Dataset(raw_data=[torch.cat([part[k] for part in parts]) for k in (0, 1)])

    def _read(self, partition: str, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        with h5py.File(self.path, "r") as file:
            group = file[f"{partition}/{name}"]
            pixels = np.array(group["images"])
            targets = np.zeros((len(pixels), self.num_labels))
            targets[np.array(group["labels_row"]), np.array(group["labels_col"])] = 1
        return torch.from_numpy(pixels), torch.from_numpy(targets).to(torch.float32)


def _algorithm(
    config: TrainConfig, num_users: int, folder: Path
) -> tuple[Any, Callable[..., Any], list[TrainingProcessCallback]]:
    """pfl's algorithm, what makes its parameters, and the callbacks that it needs."""
    name, options = config.algorithm.algorithm_name, config.algorithm
    if name == "fedprox":
        return FedProx(), lambda **known: FedProxParams(mu=options.mu, **known), []
    if name == "adafedprox":
        mu = AdaptMuOnMetricCallback(
            "Central val | macro loss",
            adapt_frequency=config.evaluation.evaluation_frequency,
            step_size=options.adafedprox_step_size,
            decrease_mu_after_consecutive_improvements=options.adafedprox_decrease_after,
        )
        return FedProx(), lambda **known: FedProxParams(mu=mu, **known), [mu]
    if name == "scaffold":
        kept = DiskUserStateStorage(str(folder))
        first = options.scaffold_option == 1
        return (
            SCAFFOLD(),
            lambda **known: SCAFFOLDParams(
                population=num_users, use_gradient_as_control_variate=first, user_state_storage=kept, **known
            ),
            [],
        )
    if name == "reptile":
        shares = {"val_split_fraction": 0.5, "min_train_size": 1, "min_val_size": 1}
        return Reptile(), lambda **known: PersonalizedNNAlgorithmParams(**shares, **known), []
    return FederatedAveraging(), NNAlgorithmParams, []


def _postprocessors(config: TrainConfig, noise_std: float) -> list[Any]:
    options = config.central_privacy
    bound = options.central_privacy_clipping_bound
    found: list[Any] = []
    if options.central_privacy_mechanism == "norm_clipping_only":
        found = [CentrallyAppliedPrivacyMechanism(NormClippingOnly(2.0, bound))]
    elif options.central_privacy_mechanism != "none":
        found = [CentrallyAppliedPrivacyMechanism(GaussianMechanism(bound, noise_std / bound))]
    return [WeightByDatapoints(), *found] if config.cohort.weighting == "num_examples" else found


def rate_share(config: TrainConfig, step: int) -> float:
    """What the script's schedule multiplies the server's rate by: warm-up, then linearly to the end, a step late."""
    options, last = config.server, config.algorithm.central_num_iterations
    warmup = options.central_lr_num_warmup_iterations
    if step < warmup:
        return step / warmup
    if options.central_lr_schedule == "constant":
        return 1.0
    end = options.central_lr_end / options.learning_rate
    return end + (1 - end) * (last - step) / (last - warmup)


@contextmanager
def _noise(network: nn.Module) -> Iterator[None]:
    """pfl's noise becomes that of ``normals``: fresh in each round, for each parameter by its name."""
    published, rounds = pytorch_ops.add_gaussian_noise, iter(range(NUM_ROUNDS))

    def add(tensors: list[torch.Tensor], stddev: float, seed: int | None) -> list[torch.Tensor]:
        noise = normals(network, next(rounds)).values()
        assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in noise]
        return [tensor + stddev * normal for tensor, normal in zip(tensors, noise)]

    pytorch_ops.add_gaussian_noise = add
    try:
        yield
    finally:
        pytorch_ops.add_gaussian_noise = published


@contextmanager
def _sign_of_scaffold() -> Iterator[None]:
    """pfl 0.6 keeps control variates as updates, minus a gradient, but adds them as gradients; here as in the paper."""
    published = PyTorchSCAFFOLDBridge.do_control_variate_sgd

    def turned(model: Any, dataset: Any, params: Any, local_c: Any, server_c: Any) -> None:
        published(model, dataset, params, local_c=server_c, server_c=local_c)

    PyTorchSCAFFOLDBridge.do_control_variate_sgd = staticmethod(turned)
    try:
        yield
    finally:
        PyTorchSCAFFOLDBridge.do_control_variate_sgd = published


@contextmanager
def _states_are_trusted() -> Iterator[None]:
    """pfl pickles its own classes, which ``torch.load`` has refused by default since 2.6."""
    published = torch.load
    torch.load = lambda path: published(path, weights_only=False)  # type: ignore[assignment]  # of its own files
    try:
        yield
    finally:
        torch.load = published
