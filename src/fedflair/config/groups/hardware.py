"""What computes, and how work is spread: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_zero, positive
from fedflair.errors import ConfigError

# True to mypy alone. What stands under TYPE_CHECKING is run by jsonargparse, and torch takes a second to load.
MYPY = False
if MYPY:
    import torch


@dataclass(frozen=True)
class HardwareOptions:
    """Hardware: what computes, and how work is spread.

    Args:
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
    """

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

    def __post_init__(self) -> None:
        at_least_zero(self, "num_threads", "workers", "gpus_per_worker")
        positive(self, "cpus_per_worker", "worker_timeout")
        if self.device == "cuda" and self.torch_device().type != "cuda":
            raise ConfigError("device: cuda asked for, but this machine has no usable GPU; use --device auto")

    def torch_device(self) -> torch.device:
        """The device to compute on: with ``auto`` resolved, and the CPU where there is no GPU."""
        # Here, as whoever asks for --help or mistypes an option need not wait a second for it.
        import torch

        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
