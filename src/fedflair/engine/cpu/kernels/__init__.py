"""Compiled passes over memory, where the machine has a C compiler; :func:`library` is None where it has none.

``exported.c`` is compiled once for the machine it runs on, in about a second, and kept in the user's cache. Without a
compiler, or with ``FEDFLAIR_KERNELS=0``, the same results come from torch's own operators, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

_SOURCES = ("exported.c", "norm.h", "pool.h", "winograd.h", "winograd_tiles.h")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared", "-std=gnu11")

_pointer, _count, _float, _double, _int = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_float,
    ctypes.c_double,
    ctypes.c_int,
)
_SIGNATURES: dict[str, list[Any]] = {
    "group_statistics_float": [_pointer] * 3 + [_count] * 4 + [_double],
    "normalise_float": [_pointer] * 7 + [_count] * 4 + [_int],
    "normalise_backward_float": [_pointer] * 11 + [_count] * 5 + [_int],
    "normalise_and_pool_float": [_pointer] * 7 + [_count] * 5,
    "normalise_and_pool_backward_float": [_pointer] * 10 + [_count] * 6,
    "copy_and_round": [_pointer] * 3 + [_count],
    "descend": [_pointer] * 3 + [_float, _count],
    "sum_of_squares": [_pointer, _count],
    "scale_onto_grid": [_pointer, _float, _float, _count],
    "product_of_rows": [_pointer] * 5 + [_count] * 3,
    "winograd_scratch": [_count] * 5,
    "winograd_convolution_float": [_pointer] * 4 + [_count] * 5 + [_int],
    "winograd_weight_gradient_float": [_pointer] * 4 + [_count] * 5,
}
_SIGNATURES |= {name.replace("_float", "_bf16"): types for name, types in _SIGNATURES.items() if "_float" in name}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None; functions take addresses and sizes, and let other threads run meanwhile."""
    if os.environ.get("FEDFLAIR_KERNELS") == "0":
        return None
    path = _built()
    if path is None:
        return None
    kernels = ctypes.CDLL(str(path))
    for name, types in _SIGNATURES.items():
        function = getattr(kernels, name, None)
        if function is None:
            # Products of bfloat16s, on a processor that has none.
            continue
        function.argtypes = types
        function.restype = {"sum_of_squares": _double, "winograd_scratch": _count}.get(name)
    return kernels


def _built() -> Path | None:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedflair"
    with resources.as_file(resources.files(__name__)) as sources:
        code = b"".join((sources / name).read_bytes() for name in _SOURCES)
        key = hashlib.sha256(code + repr((compiler, _FLAGS, _processor())).encode()).hexdigest()[:16]
        path = folder / f"kernels-{key}.so"
        if path.is_file():
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                output = Path(temporary, path.name)
                command = [compiler, *_FLAGS, "-o", str(output), str(sources / _SOURCES[0]), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                output.replace(path)
        except (OSError, subprocess.SubprocessError):
            return None
    return path


def _processor() -> str:
    """What -march=native looks at: the processor's features where the system lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())
