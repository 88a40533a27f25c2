"""What a local step does to the whole vector of parameters, in as few passes over it as there can be."""

from __future__ import annotations

import math
import mmap
import weakref
from collections import defaultdict

import torch

from fedflair.engine.cpu.kernels import library


def load(parameters: torch.Tensor, source: torch.Tensor, rounded: torch.Tensor | None) -> None:
    """``parameters[...] = source``, and ``rounded`` (bfloat16 [P]) with it where there is one."""
    kernels = library()
    if rounded is None:
        parameters.copy_(source)
    elif kernels is None or not _plain(parameters, source, rounded):
        parameters.copy_(source)
        rounded.copy_(parameters)
    else:
        kernels.copy_and_round(source.data_ptr(), parameters.data_ptr(), rounded.data_ptr(), parameters.numel())


def descend(
    parameters: torch.Tensor, gradients: torch.Tensor, rate: torch.Tensor, rounded: torch.Tensor | None
) -> None:
    """``parameters -= rate * gradients``, and ``rounded`` with it where there is one. rate: float32 []."""
    kernels = library()
    if kernels is None or not _plain(parameters, gradients):
        parameters.addcmul_(gradients, rate, value=-1.0)
        if rounded is not None:
            rounded.copy_(parameters)
    else:
        low = None if rounded is None else rounded.data_ptr()
        kernels.descend(parameters.data_ptr(), gradients.data_ptr(), low, float(rate), parameters.numel())


def difference(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left - right``: float32 [P], in memory as of ``blank``."""
    return torch.sub(left, right, out=blank(left))


def quotient(vector: torch.Tensor, divisor: float) -> torch.Tensor:
    """``vector / divisor``: float32 [P], in memory as of ``blank``."""
    return torch.div(vector, divisor, out=blank(vector))


def copied(vector: torch.Tensor) -> torch.Tensor:
    """A copy of a float32 vector, in memory as of ``blank``."""
    return blank(vector).copy_(vector)


def blank(like: torch.Tensor) -> torch.Tensor:
    """A float32 vector of any content, as long as ``like`` and where that is.

    On a CPU its memory goes back to a pool when the tensor is gone: 45 MB of fresh memory cost 15 ms of page faults,
    and there is a vector a client and a few for the server.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like)
    free = _FREE[like.numel()]
    try:
        memory = free.pop()
    except IndexError:
        memory = mmap.mmap(-1, 4 * like.numel(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # The tensor's storage holds the lease, whoever else holds the storage; when it is gone, the memory is free again.
    lease = memoryview(memory)
    weakref.finalize(lease, free.append, memory)
    return torch.frombuffer(lease, dtype=torch.float32)


_FREE: defaultdict[int, list[mmap.mmap]] = defaultdict(list)


def norm(vector: torch.Tensor) -> torch.Tensor:
    """The L2 norm of a float32 vector, summed in float64 where the kernels are there: float32 []."""
    kernels = library()
    if kernels is None or not _plain(vector):
        length: torch.Tensor = torch.linalg.vector_norm(vector)
        return length
    return torch.tensor(math.sqrt(kernels.sum_of_squares(vector.data_ptr(), vector.numel())))


def clip_factor(gradients: torch.Tensor, max_norm: float | torch.Tensor) -> torch.Tensor:
    """What brings gradients to an L2 norm of ``max_norm`` (a number, or float32 []), 1 where it is less: float32 [].

    As ``torch.nn.utils.clip_grad_norm_`` has it. On a GPU the host does not wait for it.
    """
    factor: torch.Tensor = (max_norm / (norm(gradients) + 1e-6)).clamp(max=1.0)
    return factor


def _plain(*vectors: torch.Tensor) -> bool:
    """Whether the kernels can read them: in the CPU's memory, without gaps."""
    return all(vector.device.type == "cpu" and vector.is_contiguous() for vector in vectors)
