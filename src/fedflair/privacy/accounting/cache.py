"""Numbers that took seconds to compute, kept on disk under the hash of their inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from fedflair.errors import DiskError
from fedflair.system.files import cache_folder, write_atomically

# Raised whenever the arithmetic behind cached numbers changes, so that no old number is ever served.
_GENERATION = 2


def remembered(kind: str, inputs: Mapping[str, Any], compute: Callable[[], float]) -> float:
    """``compute()``, or what it gave for the same kind and inputs before.

    They are kept in the folder ``privacy`` of the user's cache. A cache that is damaged, unreadable or on a full disk
    is the same as none, and so is that of a user without a home.
    """
    question = {"kind": kind, "inputs": dict(inputs), "generation": _GENERATION, "dp_accounting": _library_version()}
    text = json.dumps(question, sort_keys=True)
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / "privacy" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads(path.read_text())
        if entry["question"] == question and entry["value"] >= 0:
            return float(entry["value"])
    value = compute()
    with suppress(DiskError):
        write_atomically(path, json.dumps({"question": question, "value": value}))
    return value


@lru_cache(maxsize=1)
def _library_version() -> str:
    from importlib.metadata import version

    return version("dp-accounting")
