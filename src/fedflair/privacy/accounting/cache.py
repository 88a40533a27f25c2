"""Numbers that took seconds to compute, kept on disk under the hash of their inputs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

# Raised whenever the arithmetic behind cached numbers changes, so that no old number is ever served.
_GENERATION = 2


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fedflair/privacy``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fedflair" / "privacy"


def remembered(kind: str, inputs: Mapping[str, Any], compute: Callable[[], float]) -> float:
    """``compute()``, or what it gave for the same kind and inputs before.

    A cache that is damaged, unreadable or on a full disk is the same as none.
    """
    question = {"kind": kind, "inputs": dict(inputs), "generation": _GENERATION, "dp_accounting": _library_version()}
    text = json.dumps(question, sort_keys=True)
    path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads(path.read_text())
        if entry["question"] == question and entry["value"] >= 0:
            return float(entry["value"])
    value = compute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"question": question, "value": value}))
        temporary.replace(path)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    return value


@lru_cache(maxsize=1)
def _library_version() -> str:
    from importlib.metadata import version

    return version("dp-accounting")
