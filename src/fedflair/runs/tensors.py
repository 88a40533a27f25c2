"""Tensors and the facts beside them, to a file and back, as safetensors; no pickle is read or written.

A file carries a checksum of its tensors and facts, so that one that was damaged or edited is refused. Files of earlier
versions have none, and are read as they are.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedflair.errors import DataError
from fedflair.system.files import disk_errors, sync_file, sync_folder
from fedflair.system.json_text import parse_json

_METADATA = {"facts", "checksum"}
_CLOSED = 0o600


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any], *, mode: int = _CLOSED
) -> None:
    """Writes tensors and JSON-able facts to ``path``, complete or absent after a crash.

    mode: its permissions; readable by its owner only, if not given. Raises DataError where the disk refuses.
    """
    write_tensors(path, tensors, facts, mode=mode)
    with disk_errors(path):
        sync_folder(path.parent)


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    facts: Mapping[str, Any],
    *,
    synced: bool = True,
    mode: int = _CLOSED,
) -> None:
    """As ``save_tensors``, but that the file's name may not survive a crash of the machine before its folder is synced.

    synced: its content does.
    """
    separate, text = _separate(tensors), json.dumps(dict(facts), allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            # Created closed to others before anything is in it: a checkpoint may hold the secret seed of the noise.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _CLOSED))
            save_file(separate, temporary, metadata={"facts": text, "checksum": _checksum(separate, text)})
            temporary.chmod(mode)
            if synced:
                sync_file(temporary)
            temporary.replace(path)
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be written ({_one_line(error)}); free some space") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def num_entries(path: Path, name: str) -> int | None:
    """How many entries a tensor of a file has, without reading it; None where there is none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            shape: list[int] = file.get_slice(name).get_shape()
            return math.prod(shape)
    except (OSError, SafetensorError):
        return None


def load_tensors(path: Path, *, remedy: str = "start the run again") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors on the CPU, facts). Raises DataError, with the ``remedy``, where the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if not metadata.keys() <= _METADATA or metadata.get("checksum") not in (
                None,
                _checksum(tensors, metadata["facts"]),
            ):
                raise DataError(f"{path}: damaged (its content does not fit its checksum); {remedy}")
            return tensors, parse_json(metadata["facts"])
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint; was the run started, and the folder named right?") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {_one_line(error)}); {remedy}") from error


def load_facts(path: Path) -> dict[str, Any] | None:
    """The facts alone, of which no checksum is checked; None where they cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = parse_json(file.metadata()["facts"])
            return facts
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def _checksum(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    """CRC-32 of names, types, shapes, values and facts: it finds damage, at the speed of memory; it is no signature."""
    found = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"\x1f{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode(), found)
        found = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
