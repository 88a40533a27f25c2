"""Which kernels compute a layer: for each kind of processor a table, from measurements of single layers on one core.

The kind is chosen once a run, by its driver (``kernels.chosen``), and stands in the run folder: other kernels round
otherwise. Everything else follows from the table, the layer and the batch, so equal runs have equal bits.
``docs/performance.md`` says which rows were measured.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["amx_bf16", "avx512_bf16", "avx512f", "avx2", "neon", "none"]
Way = Literal["library", "winograd", "product", "channelwise"]
Direction = Literal["forward", "input", "weight"]
Precision = Literal["fp32", "bf16"]

KINDS: tuple[Kind, ...] = get_args(Kind)

# What the compiler is told to use. x86-64-v4 has AVX-512 with BW, CD, DQ and VL.
_WIDE = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_V3 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm"})
# Features in /proc/cpuinfo that the kernels of a kind need. The kind of a processor is the first that it has all of.
FEATURES: Mapping[Kind, frozenset[str]] = {
    "amx_bf16": _V3 | _WIDE | {"avx512_bf16", "amx_bf16", "amx_tile"},
    "avx512_bf16": _V3 | _WIDE | {"avx512_bf16"},
    "avx512f": _V3 | _WIDE,
    "avx2": _V3,
    "neon": frozenset({"asimd"}),
    "none": frozenset(),
}


@dataclass(frozen=True)
class Rule:
    """When a convolution is not the library's; the first that holds.

    winograd: from so many tiles of 2 x 2 output pixels on, where the kernels can do the convolution at all.
    rows, rows_per_channel: a product up to so many output pixels of the batch, and so many for each output channel.
    """

    winograd: float = math.inf
    rows: float = 0
    rows_per_channel: float = math.inf


_LIBRARY = Rule()
_ANY = math.inf
# With fewer tiles the weights' own transformation costs more than it saves.
_ALWAYS, _MOST = 0, 16
# Fewer rows than output channels.
_FEWER = 1 - 2**-20

_AVX512: Mapping[Direction, Rule] = {
    "forward": Rule(winograd=_MOST),
    "input": Rule(winograd=_MOST),
    "weight": Rule(winograd=_ALWAYS, rows=_ANY, rows_per_channel=1),
}
RULES: Mapping[tuple[Kind, Precision], Mapping[Direction, Rule]] = {
    ("amx_bf16", "fp32"): _AVX512,
    ("amx_bf16", "bf16"): {
        "forward": Rule(rows=100),
        "input": Rule(rows=100),
        "weight": Rule(rows=400),
    },
    ("avx512_bf16", "fp32"): _AVX512,
    ("avx512_bf16", "bf16"): {
        "forward": Rule(winograd=_MOST, rows=_ANY, rows_per_channel=_FEWER),
        "input": Rule(winograd=_MOST, rows=_ANY, rows_per_channel=_FEWER),
        "weight": Rule(winograd=_ALWAYS, rows=_ANY, rows_per_channel=4),
    },
    ("avx512f", "fp32"): _AVX512,
    ("avx2", "fp32"): {
        "forward": Rule(winograd=_MOST),
        "input": Rule(winograd=_MOST),
        "weight": Rule(winograd=_ALWAYS, rows=_ANY, rows_per_channel=0.5),
    },
}  # fmt: skip


# Where products of bfloat16s are computed as such. Elsewhere they are emulated, and take three times as long as with
# float32 on AVX-512, ten to a hundred times on AVX2, so that bf16 is computed in float32 there.
_IN_BF16: frozenset[Kind] = frozenset({"amx_bf16", "avx512_bf16", "none"})


# Where linear layers are not torch's own (``linear.py``).
DIRECT_LINEAR: frozenset[Kind] = frozenset({"amx_bf16", "avx512_bf16", "avx512f"})


def arithmetic(kind: Kind, precision: Precision) -> Precision:
    """What a run in ``precision`` computes in."""
    return precision if kind in _IN_BF16 else "fp32"


def way_of(kind: Kind, precision: Precision, direction: Direction, *, tiles: int, rows: int, out_channels: int) -> Way:
    """Who computes a convolution.

    tiles: of 2 x 2 output pixels of the batch; 0 where the Winograd kernels cannot do this convolution.
    rows: output pixels of the batch.
    """
    rule = RULES.get((kind, precision), {}).get(direction, _LIBRARY)
    if tiles and tiles >= rule.winograd:
        return "winograd"
    if rows <= rule.rows and rows <= rule.rows_per_channel * out_channels:
        return "product"
    return "library"


def way_by_groups(direction: Direction, kernel: tuple[int, int], *, channelwise: bool) -> Way:
    """Who computes a convolution by groups, on any processor. channelwise: whether our kernel can do it."""
    # Of other sizes the library's are a reference loop.
    return "channelwise" if channelwise and direction == "weight" and kernel != (3, 3) else "library"


def own_kind() -> Kind:
    """The kind of this processor."""
    features = own_features()
    return next(kind for kind in KINDS if FEATURES[kind] <= features)


@functools.cache
def own_features() -> frozenset[str]:
    """What the system says that this processor can do, in the words of /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        # A Mac's processors are like that; on anything else nothing is known.
        return frozenset({"asimd"} if platform.machine() in ("arm64", "aarch64") else ())
    found = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return frozenset(found.split(":", 1)[1].split())
