"""What a CPU computes a network with, in a line."""

from __future__ import annotations

import torch
from torch import nn

from fedflair.engine.cpu.choice import RULES, Kind, Precision, arithmetic
from fedflair.engine.cpu.fast_layers import DirectConv2d, FusedNorm
from fedflair.engine.cpu.fused import fused
from fedflair.engine.cpu.kernels import chosen, current
from fedflair.engine.cpu.pooled_norm import PooledNorm
from fedflair.engine.cpu.winograd_convolution import fits

# How much longer a step of ResNet-18 takes without kernels, one core, AVX-512 (docs/performance.md).
_SLOWER: dict[Precision, float] = {"fp32": 1.6, "bf16": 2.4}
_INSTRUCTIONS: dict[Kind, str] = {"amx_bf16": "AVX-512", "avx512_bf16": "AVX-512", "avx512f": "AVX-512", "avx2": "AVX2"}


def describe(module: nn.Module, precision: Precision) -> str:
    """What this process computes ``module`` with (``kernels.current``); the same restrictions as ``flatten``'s."""
    kind = current()
    if kind == "none":
        missing = chosen().missing
        slower = (
            f"{missing}: {_SLOWER[precision]} times slower; install gcc" if missing else "no kernels are to be used"
        )
        return f"convolutions and norms: torch's ({slower})"
    used = arithmetic(kind, precision)
    network = fused(module, lambda p: p.detach().bfloat16() if used == "bf16" else None)
    layers = [] if network is None else list(network.modules())
    norms = any(isinstance(layer, FusedNorm | PooledNorm) for layer in layers)
    words = (
        f"convolutions: {_convolutions(layers, kind, used)}; norms: {'own kernels' if norms else 'as torch has them'}"
    )
    if used != precision:
        words += "; in float32, since this processor only emulates products of bfloat16s"
    return words


def _convolutions(layers: list[nn.Module], kind: Kind, precision: Precision) -> str:
    convolutions = [layer for layer in layers if isinstance(layer, DirectConv2d)]
    library = "library (AMX bf16)" if kind == "amx_bf16" and precision == "bf16" else "library"
    rules = RULES.get((kind, precision), {}).values() if convolutions else ()
    ways = []
    if any(rule.winograd < float("inf") for rule in rules) and any(map(_fits, convolutions)):
        ways.append(f"Winograd ({_INSTRUCTIONS[kind]}{' bf16' if precision == 'bf16' else ''})")
    if any(rule.rows for rule in rules):
        ways.append("products")
    return " and ".join([", ".join(ways), library]) if ways else library


def _fits(layer: DirectConv2d) -> bool:
    weight: torch.Tensor = layer.convolution.weight if layer.rounded is None else layer.rounded
    return fits(weight, layer.shape)
