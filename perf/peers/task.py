"""What every contestant is asked to do, and how it is asked: lines of JSON on its standard input and output."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedflair.engine.cpu.choice import own_features
from fedflair.engine.cpu.kernels import chosen

Receive = Callable[[], list[str] | None]
Reply = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """The same for all contestants of a comparison.

    store_path: the packed store; pfl_path: the same users and pixels in pfl-research's layout.
    weights_path: initial weights, with frozen BatchNorm; None is a network from scratch, with GroupNorm.
    trainable: all, or head; fedflair then takes whole images, whose features it computes before the first round.
    device: cpu, or cuda. in_flight: clients that fedflair trains at once, 0 for its own choice.
    cuda_graphs: of fedflair. compiled: the plain loop's network under torch.compile.
    kernels: FEDFLAIR_KERNELS of the process; None is this one's.
    """

    store_path: Path
    pfl_path: Path
    num_labels: int
    num_users: int
    precision: str = "fp32"
    device: str = "cpu"
    kernels: str | None = None
    model_type: str = "resnet18"
    weights_path: Path | None = None
    image_size: int = 224
    trainable: str = "all"
    num_epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 0.01
    max_grad_norm: float = 10.0
    in_flight: int = 0
    cuda_graphs: bool = True
    compiled: bool = False


@dataclass(frozen=True)
class Contestant:
    """A process that runs rounds on demand."""

    name: str
    process: subprocess.Popen[str]

    def round(self, users: list[str]) -> dict[str, Any]:
        """Runs one round with these users: ``seconds`` as the process measured them, and what else it reports."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(users) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with status {self.process.wait()}; its messages are above")
        result: dict[str, Any] = json.loads(line)
        return result


def device(text: str) -> str:
    """The value of ``--device``, refused where there is no such device."""
    if text not in ("cpu", "cuda"):
        raise ArgumentTypeError(f"{text}: choose cpu or cuda")
    if text == "cuda" and not torch.cuda.is_available():
        raise ArgumentTypeError("this machine has no usable GPU")
    return text


def device_name(device: str) -> str:
    """What the comparison ran on, in words: of a CPU its model, what it can do for us, and the kernels in use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    can = " ".join(name for name in _TELLING if name in own_features()) or "nothing that tells"
    return f"{len(os.sched_getaffinity(0))} cores of {_model_name()} ({can}); kernels: {chosen().kind}"


def _model_name() -> str:
    with suppress(OSError):
        facts = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        named = {name.strip(): value.strip() for name, value in reversed(facts)}
        if "model name" in named:
            return f"{named['model name']}, family {named.get('cpu family', '?')}, model {named.get('model', '?')}"
    return platform.processor() or platform.machine()


# Of a processor's features those that decide which kernels are used, and how fast the libraries are.
_TELLING = (
    "amx_bf16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512f", "avx_vnni", "avx2", "fma", "asimd", "bf16", "sve",
)  # fmt: skip


@contextmanager
def contestant(name: str, module: str, task: Task) -> Iterator[Contestant]:
    """Starts ``peers.<module>`` in a process of its own; ends it with the block."""
    words = json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in asdict(task).items()})
    command = [sys.executable, "-m", "peers.task", module, words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    environment["PFL_PYTORCH_DEVICE"] = task.device
    if task.kernels is not None:
        environment["FEDFLAIR_KERNELS"] = task.kernels
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Contestant(name, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve(module: str, words: str) -> None:
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    options = json.loads(words)
    paths = {name: Path(value) for name, value in options.items() if name.endswith("_path") and value is not None}
    task = Task(**{**options, **paths})
    started = 0.0

    def receive() -> list[str] | None:
        nonlocal started
        line = sys.stdin.readline()
        started = time.perf_counter()
        users: list[str] | None = json.loads(line) if line else None
        return users

    def reply(facts: dict[str, Any]) -> None:
        if task.device == "cuda":
            torch.cuda.synchronize()
        facts = {"seconds": time.perf_counter() - started, **facts}
        if task.device == "cuda":
            facts["peak_gpu_mb"] = torch.cuda.max_memory_reserved() / 2**20
        print(json.dumps(facts), file=answers, flush=True)

    importlib.import_module(f"peers.{module}").serve(task, receive, reply)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
