"""The options of a training run: every default written once, every check made once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fedflair.errors import ConfigError

Dataset = Literal["flair", "flair_iid"]
CentralMechanism = Literal["none", "gaussian", "gaussian_moments_accountant", "laplace", "norm_clipping_only"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of ``fedflair train``; the names are those of the published benchmark.

    Args:
        data_path: The packed store to train on.
        dataset: Natural users (flair) or artificial users drawn from all images (flair_iid).
        use_fine_grained_labels: Train on the 1,628 fine labels instead of the 17 coarse ones.
        max_num_user_images: Most images of one user in one round; a larger user draws a fresh subset each round.
        mean_datapoints_per_user: Images of an artificial user (flair_iid only).
        datapoints_per_user_distribution: Whether those sizes are all equal or Poisson.
        image_size: Side in pixels of the square network input.
        model: A torchvision backbone, or a small network for quick checks on small images.
        model_type: Any torchvision classification backbone.
        pretrained: Start from ImageNet weights, BatchNorm statistics frozen; else from scratch with GroupNorm.
        pretrained_weights: A .safetensors or .pth file to start from instead of downloading torchvision's.
        algorithm_name: The federated algorithm.
        central_num_iterations: Number of rounds.
        cohort_size: Clients in a round (expected number where cohorts are Poisson).
        cohort_sampling: How cohorts are drawn; auto is poisson with a central mechanism and fixed without.
        weighting: Weight of a client's update in the mean: equal, or by its number of images.
        local_learning_rate: Learning rate of SGD on a client.
        local_num_epochs: Passes over a client's images in a round.
        local_batch_size: Images in a local step.
        local_max_grad_norm: L2 bound on the gradient of a local step.
        central_optimizer: Server optimizer, fed with minus the mean update as gradient.
        learning_rate: Server learning rate after warm-up.
        central_lr_num_warmup_iterations: Rounds over which the server learning rate rises linearly from 0.
        central_lr_end: Server learning rate of the last round, reached linearly.
        adaptivity_degree: Epsilon in the denominator of the adaptive server optimizer.
        adam_beta1: Decay of the first moment; the momentum of avgm.
        adam_beta2: Decay of the second moment.
        central_weight_decay: Decoupled weight decay of the server optimizer.
        evaluation_frequency: Rounds between evaluations on the whole val partition; checkpoints are written then too.
        central_eval_batch_size: Images in an evaluation batch.
        best_metric: Metric on val that chooses the best model.
        central_privacy_mechanism: What makes the sum of a cohort's updates private.
        central_epsilon: Privacy budget of the whole run.
        central_delta: Failure probability of the guarantee, below 1/population.
        central_privacy_clipping_bound: Bound on the norm of a client's update.
        central_order: Order of that norm; the mechanism's own if not given (norm_clipping_only takes any).
        population: Users that the accountant assumes; the number of training clients if not given.
        noise_cohort_size: Cohort whose noise is simulated, scaled down to cohort_size; cohort_size if not given.
        allow_large_delta: Accept central_delta at or above 1/population, as in the published private runs.
        accountant: Composition by privacy loss distributions or by Renyi divergence.
        seed: Seed of every random choice but private noise.
        noise_from_seed: Draw the privacy noise from seed as well: repeatable, for tests only, never private.
        device: auto picks cuda where there is a GPU.
        num_threads: Clients trained at once on a CPU; 0 is one a core. Results do not depend on it.
        run: Folder of the run; a name is made from the setting and the time if not given.
        resume: Continue the run in that folder from its last checkpoint.
    """

    data_path: Path = Path("data/flair/flair_federated.hdf5")
    dataset: Dataset = "flair"
    use_fine_grained_labels: bool = False
    max_num_user_images: int = 512
    mean_datapoints_per_user: int = 50
    datapoints_per_user_distribution: Literal["constant", "poisson"] = "constant"
    image_size: int = 224
    model: Literal["multi_label_cnn", "small_cnn"] = "multi_label_cnn"
    model_type: str = "resnet18"
    pretrained: bool = True
    pretrained_weights: Path | None = None
    algorithm_name: Literal["fedavg"] = "fedavg"
    central_num_iterations: int = 5000
    cohort_size: int = 200
    cohort_sampling: Literal["auto", "poisson", "fixed"] = "auto"
    weighting: Literal["uniform", "num_examples"] = "uniform"
    local_learning_rate: float = 0.01
    local_num_epochs: int = 2
    local_batch_size: int = 16
    local_max_grad_norm: float = 10.0
    central_optimizer: Literal["adam", "avgm", "sgd"] = "adam"
    learning_rate: float = 0.1
    central_lr_num_warmup_iterations: int = 30
    central_lr_end: float = 0.02
    adaptivity_degree: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    central_weight_decay: float = 0.0
    evaluation_frequency: int = 20
    central_eval_batch_size: int = 512
    best_metric: Literal["macro_ap", "micro_ap", "macro_f1", "micro_f1"] = "macro_ap"
    central_privacy_mechanism: CentralMechanism = "none"
    central_epsilon: float = 2.0
    central_delta: float = 1e-5
    central_privacy_clipping_bound: float = 0.1
    central_order: float | None = None
    population: int | None = None
    noise_cohort_size: int | None = None
    allow_large_delta: bool = False
    accountant: Literal["pld", "rdp"] = "pld"
    seed: int = 0
    noise_from_seed: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_threads: int = 0
    run: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in _AT_LEAST_ZERO:
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in _POSITIVE:
            value = getattr(self, name)
            _require(value > 0 and math.isfinite(value), name, value, "a finite number above 0")
        for name in ("adam_beta1", "adam_beta2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        _require(self.image_size >= 16, "image_size", self.image_size, "at least 16")
        _require(0 < self.central_delta < 1, "central_delta", self.central_delta, "in (0, 1)")
        order = self.central_order
        _require(order is None or order >= 1, "central_order", order, "at least 1")
        for name in ("population", "noise_cohort_size"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device: cuda asked for, but this machine has no usable GPU; use --device auto")
        if self.pretrained_weights is not None and not self.pretrained:
            raise ConfigError("pretrained_weights: given together with pretrained: false; drop one of the two")
        if self.central_privacy_mechanism == "none":
            if self.noise_cohort_size is not None and self.noise_cohort_size < self.cohort_size:
                raise ConfigError("noise_cohort_size: must be at least cohort_size")
        elif self.weighting != "uniform":
            raise ConfigError(
                "weighting: a central privacy mechanism needs uniform, so that one user has one bounded say"
            )

    @property
    def setting(self) -> str:
        """Short name of the benchmark setting, e.g. ``flair_iid + gaussian_moments_accountant``."""
        private = self.central_privacy_mechanism
        return self.dataset if private == "none" else f"{self.dataset} + {private}"

    @property
    def sampling(self) -> Literal["poisson", "fixed"]:
        """How cohorts are drawn, with ``auto`` resolved."""
        if self.cohort_sampling != "auto":
            return self.cohort_sampling
        return "fixed" if self.central_privacy_mechanism == "none" else "poisson"

    def torch_device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(self).items()}


_AT_LEAST_ONE = (
    "max_num_user_images",
    "mean_datapoints_per_user",
    "central_num_iterations",
    "cohort_size",
    "local_num_epochs",
    "local_batch_size",
    "evaluation_frequency",
    "central_eval_batch_size",
)
_AT_LEAST_ZERO = ("central_lr_num_warmup_iterations", "central_lr_end", "central_weight_decay", "seed", "num_threads")
_POSITIVE = (
    "local_learning_rate",
    "local_max_grad_norm",
    "learning_rate",
    "adaptivity_degree",
    "central_epsilon",
    "central_privacy_clipping_bound",
)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")
