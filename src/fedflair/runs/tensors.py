"""Tensors and the facts beside them, to a file and back, as safetensors; no pickle is read or written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedflair.errors import DataError
from fedflair.system.files import disk_errors, removed_after


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Writes tensors and JSON-able facts to ``path``: readable by its owner only, complete or absent after a crash.

    Raises DiskError where the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path), removed_after(temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created closed to others before anything is in it: a checkpoint may hold the secret seed of the noise.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        save_file(_separate(tensors), temporary, metadata={"facts": json.dumps(dict(facts))})
        temporary.chmod(0o600)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, each with memory of its own as their format wants, copied only if need be."""
    found: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in places:
            plain = plain.clone()
        places.add(plain.untyped_storage().data_ptr())
        found[name] = plain
    return found


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors on the CPU, facts). Raises DataError where the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint; was the run started, and the folder named right?") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged checkpoint ({type(error).__name__}); start the run again") from error
