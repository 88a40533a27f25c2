"""``provenance.json``: what a run belongs to, written at its start and compared whenever somebody returns to it.

Its options, the fingerprint of its store, its labels in the order of the model's outputs, and how many clients its
cohorts are drawn from, on which the noise of a private run depends. Where things are and how fast they go may change
(``FREE``), and is not in it; a checkpoint carries its digest. Only ``more_rounds`` is added later, which the digest
leaves out: a run goes on for them as it would have with as many from the beginning (``more_rounds.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.engine.cpu.choice import KINDS, Kind
from fedflair.errors import DataError
from fedflair.runs.folder import RunFolder
from fedflair.runs.json_text import dumps
from fedflair.system.files import write_atomically
from fedflair.system.json_text import read_json

ROUNDS = "central_num_iterations"
# Guarded by fingerprints and checksums instead.
PLACES = ("run", "data_path", "pretrained_weights")
# Looked at once, when a run begins; ``started_from`` says what was found there.
ONCE = ("start_from", "start_from_checkpoint")
# Where and how fast a run computes may change under way; its numbers may not.
FREE = (
    "resume",
    "resume_from",
    "num_threads",
    "cuda_graphs",
    "device",
    "workers",
    "ray_address",
    "cpus_per_worker",
    "gpus_per_worker",
    "worker_timeout",
    "wandb_project_id",
    "ledger_anchor",
)


@dataclass(frozen=True)
class Provenance:
    """options: by published name, plain values. store: its fingerprint. labels: one for each output of the model.

    num_clients: that cohorts are drawn from; None where there are none, or where an earlier version did not say.
    network: digest of the file of a network of one's own; None for all others.
    kernels: what a CPU computes with (``engine/cpu/choice.py``); None of a run that an earlier version started.
    plugins: digests of the files of a run's plugins, by module; None where it has none.
    started_from: the model that it starts from (``evaluation/start.py``), as JSON has it; None without one.
    more_rounds: numbers of rounds that it was given since it began, each larger than the one before; None where none.
    """

    options: Mapping[str, Any]
    store: str
    labels: tuple[str, ...]
    num_clients: int | None = None
    network: str | None = None
    kernels: Kind | None = None
    plugins: Mapping[str, str] | None = None
    started_from: Mapping[str, Any] | None = None
    more_rounds: tuple[int, ...] | None = None

    @property
    def totals(self) -> tuple[int, ...]:
        """How many rounds it was to have, from its beginning on; the last number is what holds."""
        return (int(self.options[ROUNDS]), *(self.more_rounds or ()))

    def digest(self) -> str:
        """Hexadecimal SHA-256 of all that it began with."""
        begun = {name: value for name, value in self.as_dict().items() if name != "more_rounds"}
        return hashlib.sha256(json.dumps(begun, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; what is not known is left out, so that an earlier version's digest stays what it was."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check_store(self, fingerprint: str, place: Path, remedy: str) -> None:
        """Raises DataError, with the ``remedy``, where the store at ``place`` is not the run's."""
        if fingerprint != self.store:
            raise DataError(f"{place}: not the store that the run was trained on (its content differs); {remedy}")

    def check_network(self, digest: str | None, model_type: str) -> None:
        """Raises DataError where the file of the run's own network has changed since."""
        if self.network is not None and digest != self.network:
            raise DataError(
                f"model_type: the file of {model_type} has changed since the run began; put it back, or start a new run"
            )

    def check_plugins(self, digests: Mapping[str, str] | None) -> None:
        """Raises DataError where the file of one of the run's plugins has changed since."""
        for name, digest in (self.plugins or {}).items():
            if (digests or {}).get(name) != digest:
                raise DataError(
                    f"plugins: the file of {name} has changed since the run began; put it back, or start a new run"
                )

    def check_options(self, config: TrainConfig, folder: RunFolder) -> None:
        """Raises DataError, naming the option, where ``config.yaml`` says something else than at the run's start."""
        # An option of a later version is not in it, and has its default.
        for name, value in self.options.items():
            found = plain_options(config).get(name, value)
            if found not in self._known(name):
                raise DataError(
                    f"{folder.config}: {name} is {found}, but the run was started with {value} "
                    f"({folder.provenance.name}); put it back"
                )

    def check_written(self, written: Mapping[str, Any], folder: RunFolder) -> None:
        """Raises DataError where ``config.yaml``, which may be cut short, lacks an option or has another value."""
        for name, value in self.options.items():
            if name not in written or _as_json(written[name]) not in self._known(name):
                raise DataError(
                    f"{folder.config}: does not say that {name} is {value}, with which the run was started "
                    f"({folder.provenance.name}); put it back"
                )

    def _known(self, name: str) -> tuple[Any, ...]:
        """What ``config.yaml`` may say of an option; a kill may leave it behind ``more_rounds``."""
        return self.totals if name == ROUNDS else (self.options[name],)


def with_rounds(provenance: Provenance, config: TrainConfig) -> Provenance:
    """The same, with the configuration's number of rounds where that is larger than what the run was to have."""
    wanted = config.option(ROUNDS)
    if wanted <= provenance.totals[-1]:
        return provenance
    return replace(provenance, more_rounds=(*provenance.totals[1:], wanted))


def plain_options(config: TrainConfig) -> dict[str, Any]:
    """The options that a run's numbers follow from, by published name, as JSON has them."""
    values = config.as_dict()
    return {name: _as_json(values[name]) for name in NAMES if name not in FREE + PLACES + ONCE}


def _as_json(value: Any) -> Any:
    """The value, or in words where it is a number that JSON has none for, as the order of a norm may be."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _more_rounds(raw: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Raises TypeError where they are no numbers."""
    more = raw.get("more_rounds")
    if more is not None and not (isinstance(more, list) and more and all(type(number) is int for number in more)):
        raise TypeError("no numbers of rounds")
    return None if more is None else tuple(more)


def write_provenance(folder: RunFolder, provenance: Provenance) -> None:
    """Writes ``provenance.json``, whole or not at all."""
    write_atomically(folder.provenance, dumps(provenance.as_dict(), indent=2) + "\n")


def read_provenance(folder: RunFolder) -> Provenance | None:
    """What the run belongs to; None of a run that an earlier version started. Raises DataError where it is damaged."""
    if not folder.provenance.exists():
        return None
    remedy = "restore it, or start the run again"
    raw = read_json(folder.provenance, remedy)
    try:
        labels = tuple(raw["labels"])
        if not isinstance(raw["store"], str) or not all(isinstance(name, str) for name in labels):
            raise TypeError("not text")
        num_clients = raw.get("num_clients")
        if num_clients is not None and (type(num_clients) is not int or num_clients < 1):
            raise TypeError("no number of clients")
        network = raw.get("network")
        if not isinstance(network, str | None):
            raise TypeError("no digest")
        kernels = raw.get("kernels")
        if kernels not in (None, *KINDS):
            raise ValueError(f"unknown kernels {kernels!r}")
        plugins = raw.get("plugins")
        if plugins is not None and not all(isinstance(text, str) for text in (*plugins, *plugins.values())):
            raise TypeError("no digests")
        started_from, more = raw.get("started_from"), _more_rounds(raw)
        if not isinstance(started_from, dict | None):
            raise TypeError("no model to start from")
        options = dict(raw["options"])
        found = Provenance(options, raw["store"], labels, num_clients, network, kernels, plugins, started_from, more)
        if any(later <= earlier for earlier, later in pairwise(found.totals)):
            raise ValueError("fewer rounds")
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder.provenance}: damaged ({type(error).__name__}); {remedy}") from error
