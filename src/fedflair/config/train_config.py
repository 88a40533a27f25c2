"""The options of a training run, every default written once; ``config_checks.py`` says which combinations can be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fedflair.config.checks import check

Dataset = Literal["flair", "flair_iid"]
CentralMechanism = Literal[
    "none",
    "gaussian",
    "gaussian_moments_accountant",
    "laplace",
    "norm_clipping_only",
    "banded_matrix_factorization",
]
LocalMechanismName = Literal["none", "gaussian", "laplace", "norm_clipping_only"]
AlgorithmName = Literal["fedavg", "fedprox", "adafedprox", "scaffold", "reptile", "central"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of ``fedflair train``; the names are those of the published benchmark.

    Args:
        data_path: The packed store to train on.
        dataset: Natural users (flair) or artificial users drawn from all images (flair_iid).
        use_fine_grained_labels: Train on the 1,628 fine labels instead of the 17 coarse ones.
        binary_label: Train on this one label (yes or no) instead of all of them.
        label_subset: Train on these labels only, in this order.
        minimum_num_datapoints_per_user: Leave out clients with fewer images.
        max_num_user_images: Most images of one user in one round; a larger user draws a fresh subset each round.
        mean_datapoints_per_user: Images of an artificial user (flair_iid only).
        datapoints_per_user_distribution: Whether those sizes are all equal or Poisson.
        image_size: Side in pixels of the square network input.
        model: A torchvision backbone, or a small network for quick checks on small images.
        model_type: Any torchvision classification backbone.
        pretrained: Start from ImageNet weights, BatchNorm statistics frozen; else from scratch with GroupNorm.
        pretrained_weights: A .safetensors or .pth file to start from instead of downloading torchvision's.
        trainable: Train every parameter, the last layer only, or the last blocks and the last layer.
        num_trainable_blocks: How many blocks last_block trains.
        algorithm_name: The federated algorithm.
        mu: Weight of the proximal term (fedprox); where it starts (adafedprox).
        adafedprox_metric_name: Metric that mu is adapted on, lower is better; a column of metrics.jsonl.
        adafedprox_adapt_frequency: Rounds between adaptations of mu; evaluation_frequency if not given.
        adafedprox_step_size: How far one adaptation moves mu.
        adafedprox_decrease_after: Improvements in a row before mu is lowered.
        scaffold_option: A client's new control variate: gradient at the server's model (1), or from the update (2).
        scaffold_states: Where clients' control variates are kept.
        scaffold_dtype: How they are stored.
        scaffold_max_clients: Most clients whose control variates are kept, oldest forgotten first; all if not given.
        central_batch_size: Images in a step of centralised training (algorithm_name central, one step a round).
        central_num_iterations: Number of rounds.
        cohort_size: Clients in a round (expected number where cohorts are Poisson).
        cohort_sampling: How cohorts are drawn; auto is poisson with a central mechanism and fixed without.
        dropout_rate: Probability that a sampled client drops out of a round before it answers.
        over_selection: Share of additional clients that are asked; the fastest cohort_size answers count.
        client_speed_std: Standard deviation of the logarithm of clients' speeds, in the simulated time of a round.
        client_seconds_per_image: Simulated seconds a client of median speed takes for one image.
        client_bandwidth: Simulated bytes a second between a client of median speed and the server.
        weighting: Weight of a client's update in the mean: equal, or a function of its number of images.
        weight_clip: Most that a client's images count with weighting clipped.
        compression: What is done to an update before it is sent: the largest entries only, or 8 bits an entry.
        top_k_fraction: Share of entries that top_k keeps.
        local_learning_rate: Learning rate of SGD on a client.
        local_num_epochs: Passes over a client's images in a round.
        local_num_steps: Steps on a client in a round, instead of epochs.
        local_momentum: Momentum of SGD on a client.
        local_weight_decay: Weight decay of SGD on a client.
        local_lr_schedule: How the local learning rate changes over the rounds.
        local_lr_end: Local learning rate of the last round, where the schedule is not constant.
        local_batch_size: Images in a local step.
        local_max_grad_norm: L2 bound on the gradient of a local step.
        central_optimizer: Server optimizer, fed with minus the mean update as gradient.
        learning_rate: Server learning rate after warm-up.
        central_lr_num_warmup_iterations: Rounds over which the server learning rate rises linearly from 0.
        central_lr_end: Server learning rate of the last round, where the schedule is not constant.
        central_lr_schedule: How the server learning rate gets from learning_rate to central_lr_end.
        central_lr_power: Power of the polynomial schedule; 1 is linear.
        adaptivity_degree: Epsilon in the denominator of the adaptive server optimizer.
        adam_beta1: Decay of the first moment; the momentum of avgm.
        adam_beta2: Decay of the second moment.
        central_weight_decay: Decoupled weight decay of the server optimizer.
        evaluation_frequency: Rounds between evaluations on the whole val partition; checkpoints are written then too.
        central_eval_batch_size: Images in an evaluation batch.
        val_cohort_size: Clients of val that each evaluation also scores one by one; 0 is none.
        local_evaluation: Score each client of a cohort on its own images before and after it trains.
        early_stopping_patience: Evaluations without a better best_metric after which the run ends; 0 is never.
        best_metric: Metric on val that chooses the best model.
        central_privacy_mechanism: What makes the sum of a cohort's updates private.
        central_epsilon: Privacy budget of the whole run.
        central_delta: Failure probability of the guarantee, below 1/population.
        central_privacy_clipping_bound: Bound on the norm of a client's update.
        central_order: Order of that norm; the mechanism's own if not given (norm_clipping_only takes any).
        min_separation: Rounds between two participations of a client (banded_matrix_factorization); else chosen.
        adaptive_clipping: Move the clipping bound towards a quantile of the norms (gaussian_moments_accountant).
        adaptive_clipping_quantile: Share of updates that the bound should leave whole.
        adaptive_clipping_learning_rate: Step of the bound's logarithm in a round.
        adaptive_clipping_noise_std: Noise on the count of whole updates, in clients; 1/20 of the cohort if not given.
        local_privacy_mechanism: What a client does to its own update before the server sees it.
        local_epsilon: Privacy budget of one client's one update.
        local_delta: Failure probability of that guarantee.
        local_privacy_clipping_bound: Bound on the norm of a client's update, applied by the client.
        local_order: Order of that norm; the mechanism's own if not given.
        population: Users that the accountant assumes; the number of training clients if not given.
        noise_cohort_size: Cohort whose noise is simulated, scaled down to cohort_size; cohort_size if not given.
        allow_large_delta: Accept central_delta at or above 1/population, as in the published private runs.
        accountant: Composition by privacy loss distributions or by Renyi divergence.
        seed: Seed of every random choice but private noise.
        noise_from_seed: Draw the privacy noise from seed as well: repeatable, for tests only, never private.
        device: auto picks cuda where there is a GPU.
        precision: fp32 (on a GPU with TF32 convolutions), or bf16 arithmetic over float32 parameters.
        num_threads: Clients trained at once; 0 is one a core, or 4 on a GPU. Results do not depend on it on a CPU.
        cuda_graphs: On a GPU, capture local steps once and replay them.
        workers: Processes that clients are spread over with Ray; 0 is this process alone.
        ray_address: A Ray cluster to run on, instead of this machine.
        cpus_per_worker: Cores that each worker reserves.
        gpus_per_worker: GPUs that each worker reserves; a fraction shares one.
        worker_timeout: Seconds after which a group of clients is taken from a worker that hangs.
        reduction: Sums in a fixed order, equal for any number of workers, or one running sum a worker.
        run: Folder of the run; a name is made from the setting and the time if not given.
        wandb_project_id: Send the metrics to this Weights & Biases project too.
        resume: Continue the run in that folder from its last checkpoint.
    """

    data_path: Path = Path("data/flair/flair_federated.hdf5")
    dataset: Dataset = "flair"
    use_fine_grained_labels: bool = False
    binary_label: str | None = None
    label_subset: tuple[str, ...] | None = None
    minimum_num_datapoints_per_user: int = 1
    max_num_user_images: int = 512
    mean_datapoints_per_user: int = 50
    datapoints_per_user_distribution: Literal["constant", "poisson"] = "constant"
    image_size: int = 224
    model: Literal["multi_label_cnn", "small_cnn"] = "multi_label_cnn"
    model_type: str = "resnet18"
    pretrained: bool = True
    pretrained_weights: Path | None = None
    trainable: Literal["all", "head", "last_block"] = "all"
    num_trainable_blocks: int = 1
    algorithm_name: AlgorithmName = "fedavg"
    mu: float = 0.01
    adafedprox_metric_name: str = "val/macro_loss"
    adafedprox_adapt_frequency: int | None = None
    adafedprox_step_size: float = 0.1
    adafedprox_decrease_after: int = 1
    scaffold_option: Literal[1, 2] = 2
    scaffold_states: Literal["disk", "memory"] = "disk"
    scaffold_dtype: Literal["float32", "bfloat16"] = "float32"
    scaffold_max_clients: int | None = None
    central_batch_size: int = 512
    central_num_iterations: int = 5000
    cohort_size: int = 200
    cohort_sampling: Literal["auto", "poisson", "fixed"] = "auto"
    dropout_rate: float = 0.0
    over_selection: float = 0.0
    client_speed_std: float = 0.0
    client_seconds_per_image: float = 0.1
    client_bandwidth: float = 1e6
    weighting: Literal["uniform", "num_examples", "log", "sqrt", "clipped"] = "uniform"
    weight_clip: int = 64
    compression: Literal["none", "top_k", "quantize_8bit"] = "none"
    top_k_fraction: float = 0.01
    local_learning_rate: float = 0.01
    local_num_epochs: int = 2
    local_num_steps: int | None = None
    local_momentum: float = 0.0
    local_weight_decay: float = 0.0
    local_lr_schedule: Literal["constant", "polynomial", "cosine"] = "constant"
    local_lr_end: float = 0.0
    local_batch_size: int = 16
    local_max_grad_norm: float = 10.0
    central_optimizer: Literal["adam", "adagrad", "yogi", "avgm", "sgd"] = "adam"
    learning_rate: float = 0.1
    central_lr_num_warmup_iterations: int = 30
    central_lr_end: float = 0.02
    central_lr_schedule: Literal["constant", "polynomial", "cosine"] = "polynomial"
    central_lr_power: float = 1.0
    adaptivity_degree: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    central_weight_decay: float = 0.0
    evaluation_frequency: int = 20
    central_eval_batch_size: int = 512
    val_cohort_size: int = 0
    local_evaluation: bool = False
    early_stopping_patience: int = 0
    best_metric: Literal["macro_ap", "micro_ap", "macro_f1", "micro_f1"] = "macro_ap"
    central_privacy_mechanism: CentralMechanism = "none"
    central_epsilon: float = 2.0
    central_delta: float = 1e-5
    central_privacy_clipping_bound: float = 0.1
    central_order: float | None = None
    min_separation: int | None = None
    adaptive_clipping: bool = False
    adaptive_clipping_quantile: float = 0.5
    adaptive_clipping_learning_rate: float = 0.2
    adaptive_clipping_noise_std: float | None = None
    local_privacy_mechanism: LocalMechanismName = "none"
    local_epsilon: float = 2.0
    local_delta: float = 1e-5
    local_privacy_clipping_bound: float = 0.1
    local_order: float | None = None
    population: int | None = None
    noise_cohort_size: int | None = None
    allow_large_delta: bool = False
    accountant: Literal["pld", "rdp"] = "pld"
    seed: int = 0
    noise_from_seed: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    num_threads: int = 0
    cuda_graphs: bool = True
    workers: int = 0
    ray_address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    worker_timeout: float = 600.0
    reduction: Literal["exact", "fast"] = "exact"
    run: Path | None = None
    wandb_project_id: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        check(self)

    @property
    def setting(self) -> str:
        """Short name of the benchmark setting, e.g. ``flair_iid + gaussian_moments_accountant``, or ``central``."""
        if self.algorithm_name == "central":
            return "central"
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
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(self).items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
