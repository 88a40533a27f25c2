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
from contextlib import suppress
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedflair.errors import DiskError
from fedflair.system.files import cache_folder, write_atomically

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
    kernels = _loaded()
    if kernels is None:
        return None
    for name, types in _SIGNATURES.items():
        function = getattr(kernels, name, None)
        if function is None:
            # Products of bfloat16s, on a processor that has none.
            continue
        function.argtypes = types
        function.restype = {"sum_of_squares": _double, "winograd_scratch": _count}.get(name)
    return kernels


def _loaded() -> ctypes.CDLL | None:
    """The library out of the user's cache; where it is not there, is damaged or may not be run, a new one."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    with resources.as_file(resources.files(__name__)) as sources:
        code = b"".join((sources / name).read_bytes() for name in _SOURCES)
        key = hashlib.sha256(code + repr((compiler, _FLAGS, _processor())).encode()).hexdigest()[:16]
        cache = cache_folder()
        kept = None if cache is None else cache / f"kernels-{key}.so"
        kernels = None if kept is None else _load(kept)
        if kernels is not None:
            return kernels
        with suppress(OSError, subprocess.SubprocessError, DiskError), TemporaryDirectory() as temporary:
            built = Path(temporary, f"kernels-{key}.so")
            command = [compiler, *_FLAGS, "-o", str(built), str(sources / _SOURCES[0]), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            if kept is not None:
                with suppress(DiskError):
                    _save(built.read_bytes(), kept)
                    kernels = _load(kept)
            # What a folder may not keep, or not run (a mount with noexec), is loaded from another one.
            return kernels or ctypes.CDLL(str(built))
    return None


def _load(path: Path) -> ctypes.CDLL | None:
    """The library at ``path``, None where it is not whole: a call into one that is cut short would end the process."""
    try:
        whole = hashlib.sha256(path.read_bytes()).hexdigest() == _checksum(path).read_text()
        return ctypes.CDLL(str(path)) if whole else None
    except (OSError, UnicodeDecodeError):
        return None


def _save(library: bytes, path: Path) -> None:
    write_atomically(_checksum(path), hashlib.sha256(library).hexdigest())
    write_atomically(path, library, mode=0o755)


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _processor() -> str:
    """What -march=native looks at: the processor's features where the system lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())
