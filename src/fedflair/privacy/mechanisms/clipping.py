"""Clipping of whole updates, and the two mechanisms that add no noise: ``none`` and ``norm_clipping_only``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fedflair.engine.cpu.kernels import library
from fedflair.errors import ConfigError
from fedflair.privacy.contract import (
    ClipResult,
    CohortStats,
    Mechanism,
    MechanismState,
    PrivacyOptions,
)
from fedflair.sampling import SamplerDescription

# Float64 copies of blocks this long stay in the processor's cache: 7 times faster than one copy of 11.2 M values. They
# are short enough for torch to sum them in the calling thread, beside which other clients are trained.
_BLOCK = 1 << 15

# Float32 roundings of the factor and of each product can lengthen an update by 2**-23: scale to a little less.
_ROUNDING = 1 - 2**-22

_SMALLEST_FACTOR = 2.0**-64


def vector_norm(vector: torch.Tensor, order: float) -> float:
    """The ``order``-norm (>= 1 or inf) of a float32 vector, accumulated in float64; not finite where it is not."""
    if vector.numel() == 0:
        return 0.0
    if vector.is_cuda:
        return float(torch.linalg.vector_norm(vector, order, dtype=torch.float64))
    kernels = library()
    if order == 2 and kernels is not None and vector.is_contiguous() and vector.dtype == torch.float32:
        return math.sqrt(kernels.sum_of_squares(vector.data_ptr(), vector.numel()))
    if order == 2:
        # Not torch.dot: the linear algebra library starts threads for each block, which costs more than the sum.
        return math.hypot(*(float(torch.linalg.vector_norm(block.double())) for block in torch.split(vector, _BLOCK)))
    if order == 1:
        return math.fsum(float(block.double().abs().sum()) for block in torch.split(vector, _BLOCK))
    largest = float(vector.abs().max())
    if math.isinf(order) or largest == 0 or not math.isfinite(largest):
        return largest
    # Relative to the largest entry no power overflows, and what underflows does not count.
    blocks = (block.double().abs() / largest for block in torch.split(vector, _BLOCK))
    return float(largest * math.fsum(float(block.pow(order).sum()) for block in blocks) ** (1 / order))


def clip_update(update: torch.Tensor, bound: float, order: float = 2.0, grid: float | None = None) -> ClipResult:
    """Scales ``update`` (float32 [P]) in place to ``order``-norm <= bound, exactly; a non-finite update becomes zero.

    ``bound`` inf only rejects what is not finite. grid: each entry is also cut, towards zero, to a multiple of it
    (``exact_grid``), which lengthens nothing.
    """
    norm = vector_norm(update, order)
    if not math.isfinite(norm):
        update.zero_()
        return ClipResult(norm, clipped=False, rejected=True)
    return ClipResult(norm, clipped=bring_within(update, norm, bound, grid), rejected=False)


def bring_within(update: torch.Tensor, norm: float, bound: float, grid: float | None) -> bool:
    """Scales ``update``, or a part of a vector of that ``norm``, so that the norm is <= ``bound``; whether it was more.

    In place; grid: as of ``clip_update``.
    """
    if norm <= bound:
        if grid is not None:
            _scale_onto(update, 1.0, grid)
        return False
    factor = bound / norm * _ROUNDING
    if factor < _SMALLEST_FACTOR:
        # As one float32 this factor would have few digits or none left.
        update.mul_(_SMALLEST_FACTOR)
        factor /= _SMALLEST_FACTOR
    if grid is None:
        update.mul_(factor)
    else:
        _scale_onto(update, factor, grid)
    return True


def exact_grid(bound: float, cohort_size: int) -> float:
    """The grid on which a sum of clipped updates is exact in float32, whatever its order.

    Otherwise thousands of roundings make one client more or less move the sum by more than the bound. Entries are at
    most ``bound``; realised Poisson cohorts are far below twice the expected size and 64 more, beyond any doubt.
    """
    return 2.0 ** max(math.ceil(math.log2(bound * (2 * cohort_size + 64))) - 24, -120)


def _scale_onto(update: torch.Tensor, factor: float, grid: float) -> None:
    """``update * factor``, cut towards zero to multiples of ``grid``, in place; in one pass where there are kernels."""
    kernels = library() if update.device.type == "cpu" and update.is_contiguous() else None
    if kernels is None:
        update.mul_(factor / grid).trunc_().mul_(grid)
    else:
        kernels.scale_onto_grid(update.data_ptr(), factor / grid, grid, update.numel())


def norm_order(order: float | None, option: str) -> float:
    """``order``, 2 if None. Raises ConfigError, naming the option, where it is not the order of a norm."""
    if order is None:
        return 2.0
    if not order >= 1:
        raise ConfigError(f"{option}: {order} is not the order of a norm; it must be at least 1, or inf")
    return order


def none(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int) -> Mechanism:
    """Neither clipping nor noise; a non-finite update still counts as zero."""
    return _noiseless("none", math.inf, 2.0, {})


def norm_clipping_only(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """Clipping in any order's norm, no noise; no epsilon holds."""
    order = norm_order(options.order, "central_order")
    description = {
        "mechanism": "norm_clipping_only",
        "epsilon": None,
        "delta": None,
        "clipping_bound": options.clipping_bound,
        "order": order if math.isfinite(order) else "inf",
        "words": f"updates are clipped to {order:g}-norm {options.clipping_bound:g} and no noise is added: not private",
    }
    return _noiseless("norm_clipping_only", options.clipping_bound, order, description)


def _noiseless(name: str, bound: float, order: float, description: Mapping[str, Any]) -> Mechanism:
    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        return total, state

    return Mechanism(
        name=name,
        init=lambda num_parameters: {},
        clipping_bound=lambda state: bound,
        clip=lambda update, bound: clip_update(update, bound, order),
        add_noise=add_noise,
        event=lambda num_rounds: None,
        noise_std=lambda state, round_: 0.0,
        description=description,
        run_event=lambda num_rounds: None,
    )
