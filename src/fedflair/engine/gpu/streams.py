"""Several clients at once on one GPU: each worker's work goes to a stream of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

# One client of a few images does not fill a GPU, and while one decodes on the host, others are trained.
DEFAULT_IN_FLIGHT = 4


def prepare_gpu() -> None:
    """How this process computes on its GPU: convolutions in TF32 where they are float32, and as repeatable as it goes.

    Matrix products stay float32, those that crops are made of among them. Kernels that add up in any order are not
    chosen where there are others, nor are kernels timed, which would choose differently from run to run.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if hasattr(torch.backends.cudnn, "conv"):
        torch.backends.cudnn.conv.fp32_precision = "tf32"
    else:
        torch.backends.cudnn.allow_tf32 = True


def run_on_stream(stream: torch.cuda.Stream, task: Callable[..., Any], *arguments: Any) -> Any:
    """``task(*arguments)`` on ``stream``: after what the default stream has got so far, and finished on return.

    The result is for use on the default stream: its memory is not handed out again before that is through with it.
    """
    main = torch.cuda.default_stream(stream.device)
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        result = task(*arguments)
    for tensor in tensors_in(result):
        if tensor.is_cuda:
            tensor.record_stream(main)
    stream.synchronize()
    return result


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for one worker's work; None where ``device`` has none."""
    if device.type != "cuda":
        return None
    # torch declares no types for making one.
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a value, looked for in mappings, sequences and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
