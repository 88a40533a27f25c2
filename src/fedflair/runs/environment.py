"""``environment.json``: what made a run, an entry each time it was begun or gone on with.

It is for people who want to know where numbers come from. A run is not held to it (machines may change under way, see
``provenance.py``), and as the files of private runs are public, nothing secret is in it: no noise seed, no token, no
variable of the environment.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedflair import __version__
from fedflair.config.train_config import TrainConfig
from fedflair.data.store.packed import Store
from fedflair.engine.cpu.choice import Kind
from fedflair.engine.cpu.kernels import chosen, forced_kind
from fedflair.errors import DataError
from fedflair.privacy.ledger import coverage
from fedflair.runs import shapes
from fedflair.runs.folder import DAMAGED, RunFolder
from fedflair.runs.json_text import dumps
from fedflair.system.cores import num_cores
from fedflair.system.files import write_atomically
from fedflair.system.json_text import read_json

Entry = Mapping[str, Any]

# A network's prefix -> the library that it comes from.
_FAMILIES = {"timm": "timm", "hf": "transformers"}
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_GIT_SECONDS = 10
# Of what a store says of its making; prepare's has some 300.
_MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class Found:
    """What a run found when it was begun, or gone on with.

    round: that it goes on after; 0 where it begins. command: the words as they were typed; None where Python called.
    resolved: what options came to that leave it to the machine, the network or a mechanism.
    promised: whether the run promises an epsilon.
    """

    config: TrainConfig
    store: Store
    device: torch.device
    kernels: Kind
    round: int
    command: Sequence[str] | None
    resolved: Mapping[str, Any]
    promised: bool


def entry_of(found: Found) -> Entry:
    """The entry of this machine, this moment and the current folder."""
    config = found.config
    entry: dict[str, Any] = {
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "round": found.round,
        "command": None if found.command is None else list(found.command),
        "git": git_state(),
        "versions": _versions(config),
        "system": platform.platform(),
        "processor": {"name": _processor(), "cores": num_cores()},
        "gpu": _gpu(found.device),
        "computes": {
            "device": str(found.device),
            "precision": config.hardware.precision,
            "threads": found.resolved.get("num_threads", config.hardware.num_threads),
            "workers": config.hardware.workers,
            "kernels": found.kernels,
            "kernels_are": _choice(found.kernels, found.device),
        },
        "store": {"fingerprint": found.store.fingerprint, "provenance": _short(found.store.metadata.provenance)},
        "seeds": {"seed": config.run.seed, "noise": _noise(config, promised=found.promised)},
        "resolved": dict(found.resolved),
    }
    # What a store says of its making counts its users' images.
    return {**entry, coverage.FIELD: ["store"]} if found.promised else entry


def append_entry(folder: RunFolder, entry: Entry) -> list[Entry]:
    """Adds an entry to ``environment.json``; returns all of them. Raises DataError where the file is damaged."""
    entries = [*read_environment(folder), entry]
    write_atomically(folder.environment, dumps(entries, indent=2) + "\n")
    return entries


def read_environment(folder: RunFolder) -> list[Entry]:
    """The entries, oldest first; none where an earlier version began the run. Raises DataError for a damaged file."""
    if not folder.environment.is_file():
        return []
    found: list[Entry] = read_json(folder.environment, DAMAGED)
    if wrong := shapes.environment_problem(found):
        raise DataError(f"{folder.environment}: {wrong}; {DAMAGED}")
    return found


def lines_of(entry: Entry) -> Iterator[str]:
    """An entry for people, a line each value: ``versions.torch: 2.9``."""
    yield from _lines("", entry)


def git_state() -> dict[str, Any] | None:
    """The commit of the current folder, and whether its files differ from it; None where there is none.

    changed: of the files that git tracks; None where git could not tell in time.
    """
    commit = _git("rev-parse", "--verify", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(*words: str) -> str | None:
    """What git prints of the current folder; None where it fails. It starts no program that the folder names."""
    # As in a hook of git's own, variables may lead to another folder.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _versions(config: TrainConfig) -> dict[str, str]:
    family = _FAMILIES.get(config.model.model_type.partition(":")[0])
    found = {"fedflair": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    found["numpy"] = np.__version__
    # Not imported for their names: both take long.
    for name in ("torchvision", *([family] if family else [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """Its name where the system says it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _gpu(device: torch.device) -> dict[str, Any] | None:
    if device.type != "cuda":
        return None
    facts = torch.cuda.get_device_properties(device)
    return {"name": facts.name, "bytes": facts.total_memory, "cuda": torch.version.cuda}


def _choice(kernels: Kind, device: torch.device) -> str:
    """Why it computes with these kernels."""
    if device.type != "cpu":
        return "none, as a GPU computes"
    if forced_kind() is not None:
        return "those that FEDFLAIR_KERNELS names"
    own = chosen()
    if kernels != own.kind:
        return "those that the run began with"
    return f"none: {own.missing}" if own.missing else "this processor's"


def _noise(config: TrainConfig, *, promised: bool) -> str:
    """Where the seed of the noise comes from; what it is stays in the checkpoint."""
    if not promised:
        return "none"
    return "from seed" if config.run.noise_from_seed else "secret"


def _short(provenance: Mapping[str, Any]) -> Any:
    length = len(dumps(provenance))
    return dict(provenance) if length <= _MOST_CHARACTERS else f"left out: {length:,} characters"


def _lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _lines(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list):
        # As they would be typed, so that a command's words can be told apart.
        yield f"{name}: {shlex.join(map(_word, value))}"
    elif value is not None:
        yield f"{name}: {_word(value)}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)
