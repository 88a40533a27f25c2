"""Compiled passes over memory, where the machine has a C compiler; :func:`library` is None where it has none.

``exported.c`` is compiled once for each kind of processor (``choice.py``), in about a second, and kept in the user's
cache. Without a compiler, or with ``FEDFLAIR_KERNELS=0``, torch's own operators give the same results up to rounding,
more slowly. ``FEDFLAIR_KERNELS`` may also name a kind that is not the processor's own.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedflair.engine.cpu.choice import FEATURES, KINDS, Kind, own_features, own_kind
from fedflair.errors import ConfigError, DiskError
from fedflair.system.files import cache_folder, write_atomically

_SOURCES = ("exported.c", "norm.h", "pool.h", "channelwise.h", "winograd.h", "winograd_tiles.h")
_FLAGS = ("-O3", "-fPIC", "-shared", "-std=gnu11")
# The same instructions on every processor of a kind; ordered for this one.
_INSTRUCTIONS: dict[Kind, tuple[str, ...]] = {
    "amx_bf16": ("-march=x86-64-v4", "-mavx512bf16", "-mtune=native"),
    "avx512_bf16": ("-march=x86-64-v4", "-mavx512bf16", "-mtune=native"),
    "avx512f": ("-march=x86-64-v4", "-mtune=native"),
    "avx2": ("-march=x86-64-v3", "-mtune=native"),
    "neon": ("-mcpu=native",),
}
# An AMX processor's products are the library's; its own kernels need no tiles, so that any like it can stand in for it.
_KERNELS_OF: dict[Kind, Kind] = {"amx_bf16": "avx512_bf16"}
_VARIABLE = "FEDFLAIR_KERNELS"

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
    "channelwise_weight_gradient_float": [_pointer] * 3 + [_count] * 12,
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


@dataclass(frozen=True)
class Chosen:
    """The kind of kernels that a run begins with. missing: what the machine lacks for better ones, in words."""

    kind: Kind
    missing: str = ""


# What this process computes with; a list, so that it can be put back. Empty is what the machine would choose.
_CURRENT: list[Kind] = []


def current() -> Kind:
    """The kind of kernels that this process computes with."""
    return _CURRENT[-1] if _CURRENT else chosen().kind


@contextmanager
def computing_with(kind: Kind) -> Iterator[None]:
    """Lets the whole process compute with kernels of that kind, within the block. Raises as ``require``."""
    require(kind)
    _CURRENT.append(kind)
    try:
        yield
    finally:
        _CURRENT.remove(kind)


def chosen() -> Chosen:
    """What a run that begins on this machine computes with: what FEDFLAIR_KERNELS says, or else the processor's kind.

    Raises ConfigError where FEDFLAIR_KERNELS asks for what there is not.
    """
    forced = forced_kind()
    if forced is not None:
        require(forced)
        return Chosen(forced)
    kind = own_kind()
    missing = _missing(kind)
    return Chosen("none" if missing else kind, missing)


def continued(begun_with: Kind) -> tuple[Kind, str]:
    """What a run that began with some kernels goes on with, and what its user has to know of that, or nothing.

    Those it began with, unless FEDFLAIR_KERNELS names others. Raises ConfigError where this machine cannot.
    """
    forced = forced_kind()
    if forced not in (None, begun_with):
        require(forced)
        return (
            forced,
            f"begun with {begun_with} kernels, goes on with {forced} ({_VARIABLE}): equal up to rounding only",
        )
    missing = _missing(begun_with)
    if missing:
        raise ConfigError(
            f"the run computes with {begun_with} kernels, and there is {missing}; resume it on a machine that has it, "
            f"or go on with others by {_VARIABLE}={chosen().kind} (equal up to rounding only)"
        )
    own = chosen().kind
    if own == begun_with:
        return begun_with, ""
    return begun_with, f"computes with {begun_with} kernels, as it began; a new run would take {own} here"


def scored_with(trained_with: Kind) -> tuple[Kind, str]:
    """As ``continued``, for scoring alone: where this machine has not the run's kernels, its own will do."""
    kind = forced_kind() or (chosen().kind if _missing(trained_with) else trained_with)
    return kind, "" if kind == trained_with else f"{kind}, not {trained_with} as in training: equal up to rounding only"


def forced_kind() -> Kind | None:
    """The kind that FEDFLAIR_KERNELS names; None where it is not set. Raises ConfigError for other words."""
    word = os.environ.get(_VARIABLE, "")
    if not word:
        return None
    kind = next((kind for kind in KINDS if kind == word or (kind == "none" and word == "0")), None)
    if kind is None:
        raise ConfigError(f"{_VARIABLE}: {word!r} is no kind of kernels; choose 0 or one of {', '.join(KINDS)}")
    return kind


def require(kind: Kind) -> None:
    """Raises ConfigError, saying what is missing, where this machine cannot compute with kernels of that kind."""
    missing = _missing(kind)
    if missing:
        raise ConfigError(
            f"{_VARIABLE}: kernels for {kind} are asked for, and there is {missing}; "
            f"use a machine that has it, or choose others by {_VARIABLE}={own_kind()} or 0 (equal up to rounding)"
        )


def _missing(kind: Kind) -> str:
    """What this machine lacks of what kernels of that kind take, in words."""
    if kind == "none":
        return ""
    lacking = FEATURES[_KERNELS_OF.get(kind, kind)] - own_features()
    if lacking:
        return f"no {', '.join(sorted(lacking))} in this processor"
    if _compiler() is None:
        return "no C compiler"
    return "" if _library(kind) else "no C compiler that can build them (gcc 12 can)"


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None; functions take addresses and sizes, and let other threads run meanwhile."""
    return _library(current())


@functools.cache
def _library(kind: Kind) -> ctypes.CDLL | None:
    if kind == "none":
        return None
    kernels = _loaded(_INSTRUCTIONS[kind])
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


def _compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def _loaded(instructions: tuple[str, ...]) -> ctypes.CDLL | None:
    """The library out of the user's cache; where it is not there, is damaged or may not be run, a new one."""
    compiler = _compiler()
    if compiler is None:
        return None
    with resources.as_file(resources.files(__name__)) as sources:
        code = b"".join((sources / name).read_bytes() for name in _SOURCES)
        key = hashlib.sha256(
            code + repr((compiler, _FLAGS, instructions, sorted(own_features()))).encode()
        ).hexdigest()[:16]
        cache = cache_folder()
        kept = None if cache is None else cache / f"kernels-{key}.so"
        kernels = None if kept is None else _load(kept)
        if kernels is not None:
            return kernels
        with suppress(OSError, subprocess.SubprocessError, DiskError), TemporaryDirectory() as temporary:
            built = Path(temporary, f"kernels-{key}.so")
            command = [compiler, *_FLAGS, *instructions, "-o", str(built), str(sources / _SOURCES[0]), "-lm"]
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
