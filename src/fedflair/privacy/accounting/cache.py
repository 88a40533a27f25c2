"""Numbers that took seconds to compute, kept on disk under the hash of their inputs.

An entry carries a checksum, so that a damaged one is dropped and computed anew. What a promise rests on is not taken
from here unchecked all the same: see ``calibration.calibrate``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from fedflair.errors import DiskError
from fedflair.system.files import cache_folder, write_atomically

# Raised whenever the arithmetic behind cached numbers changes, so that no old number is ever served.
_GENERATION = 5


_computed: ContextVar[dict[str, float] | None] = ContextVar("what a block has computed for itself", default=None)


@contextmanager
def unremembered() -> Iterator[None]:
    """Within the block every number is computed, once, and none is kept: for whoever must not trust the cache."""
    before = _computed.set({})
    try:
        yield
    finally:
        _computed.reset(before)


def remembered(kind: str, inputs: Mapping[str, Any], compute: Callable[[], float], *, anew: bool = False) -> float:
    """``compute()``, or what it gave for the same kind and inputs before.

    They are kept in the folder ``privacy`` of the user's cache. anew: computes whatever there is, and replaces it. A
    cache that is damaged, unreadable or on a full disk is the same as none, and so is that of a user without a home.
    """
    question = {"kind": kind, "inputs": dict(inputs), "generation": _GENERATION, "dp_accounting": _library_version()}
    text = json.dumps(question, sort_keys=True, allow_nan=False)
    computed, folder = _computed.get(), cache_folder()
    if computed is not None:
        if text not in computed:
            computed[text] = compute()
        return computed[text]
    if folder is None:
        return compute()
    path = folder / "privacy" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads("{}" if anew else path.read_text())
        if entry["question"] == question and entry["checksum"] == _checksum(text, entry["value"]):
            return math.inf if entry["value"] is None else float(entry["value"])
    value = compute()
    written = value if math.isfinite(value) else None
    entry = {"question": question, "value": written, "checksum": _checksum(text, written)}
    with suppress(DiskError):
        write_atomically(path, json.dumps(entry, allow_nan=False))
    return value


def _checksum(question: str, value: Any) -> str:
    return hashlib.sha256(f"{question}\x1f{value!r}".encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _library_version() -> str:
    from importlib.metadata import version

    return version("dp-accounting")
