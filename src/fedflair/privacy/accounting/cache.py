"""Numbers that took seconds to compute, kept on disk under the hash of their inputs.

An entry carries a checksum, so that a damaged one is dropped and computed anew. What a promise rests on is not taken
from here unchecked all the same: see ``accountants.calibrate``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

# Raised whenever the arithmetic behind cached numbers changes, so that no old number is ever served.
_GENERATION = 3


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fedflair/privacy``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fedflair" / "privacy"


def remembered(kind: str, inputs: Mapping[str, Any], compute: Callable[[], float], *, anew: bool = False) -> float:
    """``compute()``, or what it gave for the same kind and inputs before.

    anew: computes whatever there is, and replaces it. A cache that is damaged, unreadable or on a full disk is the same
    as none.
    """
    question = {"kind": kind, "inputs": dict(inputs), "generation": _GENERATION, "dp_accounting": _library_version()}
    text = json.dumps(question, sort_keys=True, allow_nan=False)
    path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads("{}" if anew else path.read_text())
        if entry["question"] == question and entry["checksum"] == _checksum(text, entry["value"]):
            return math.inf if entry["value"] is None else float(entry["value"])
    value = compute()
    written = value if math.isfinite(value) else None
    entry = {"question": question, "value": written, "checksum": _checksum(text, written)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entry, allow_nan=False))
        temporary.replace(path)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    return value


def _checksum(question: str, value: Any) -> str:
    return hashlib.sha256(f"{question}\x1f{value!r}".encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _library_version() -> str:
    from importlib.metadata import version

    return version("dp-accounting")
