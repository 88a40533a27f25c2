"""The best or the last model of a finished or stopped run, opened: what evaluation, predictions and exports use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.data.store.packed import Store
from fedflair.engine.cpu.choice import Kind
from fedflair.engine.cpu.kernels import scored_with
from fedflair.errors import DataError
from fedflair.federated.model_setup import ModelSetup, make_model_setup
from fedflair.federated.networks import own_code
from fedflair.federated.plugins import plugin_code
from fedflair.privacy.ledger import coverage
from fedflair.runs.configuration import config_of_run
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import Provenance, read_provenance
from fedflair.runs.tensors import load_tensors

CheckpointName = Literal["best", "last"]

# What to do where the file of that checkpoint is damaged.
_OTHERS: dict[CheckpointName, str] = {
    "best": "restore it, or take the last model with --checkpoint last",
    "last": "restore it, or take the best model with --checkpoint best",
}


@dataclass(frozen=True)
class Model:
    """A model ready to be used on photographs, of a run or exported. parameters: float32 [P].

    facts: what stands above whatever is computed with it.
    """

    setup: ModelSetup
    parameters: torch.Tensor
    facts: Mapping[str, str]


@dataclass(frozen=True)
class OpenedRun:
    """A run's model, held to what the run is held to.

    provenance: None of a run that an earlier version began. saved: the facts of the checkpoint, less what is secret.
    parameters: float32 [P]. fixed: what the model needs beside them.
    kernels: what a CPU is to compute with; None is what this machine chooses. kernels_note: where not the run's.
    """

    folder: RunFolder
    checkpoint: CheckpointName
    config: TrainConfig
    provenance: Provenance | None
    saved: Mapping[str, Any]
    parameters: torch.Tensor
    fixed: Mapping[str, torch.Tensor]
    kernels: Kind | None
    kernels_note: str

    @property
    def promises_epsilon(self) -> bool:
        """Whether a mechanism of the run promises one, of which something could be left uncovered."""
        config = self.config
        mechanisms = {config.central_privacy.central_privacy_mechanism, config.local_privacy.local_privacy_mechanism}
        return bool(mechanisms - {"none", "norm_clipping_only"})

    @property
    def facts(self) -> dict[str, str]:
        """What stands above numbers that are computed with the model."""
        facts = {"run": str(self.folder.path), "checkpoint": self.checkpoint}
        if self.kernels_note:
            facts["kernels"] = self.kernels_note
        if self.promises_epsilon:
            facts[coverage.FIELD] = "every number here"
        return facts

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's, in the order of its outputs. Raises DataError where the folder does not say."""
        if self.provenance is None:
            raise DataError(
                f"{self.folder.path}: begun by an earlier fedflair, which wrote no labels; "
                f"'fedflair train --resume --run {self.folder.path}' adds them from its store"
            )
        return self.provenance.labels

    def model(self) -> Model:
        """To be used without a store. Raises ConfigError where its network cannot be made here."""
        setup = make_model_setup(self.config, self.labels, self.fixed, self.kernels)
        return Model(setup, self.parameters.to(setup.device), self.facts)

    def check_store(self, store: Store) -> None:
        """Raises DataError where ``store``, at the place of the run's own, is another one."""
        if self.provenance is not None:
            remedy = "name the run's own, or this one if it is meant, with --data_path"
            self.provenance.check_store(store.fingerprint, store.path, remedy)


def open_run(run: Path, checkpoint: CheckpointName) -> OpenedRun:
    """Opens a run's model; no store is needed, and none is looked for.

    Raises DataError where the folder holds no such run, is damaged, or own code was changed since the run began.
    """
    folder = RunFolder(run)
    config = config_of_run(folder)
    tensors, saved = load_tensors(folder.best if checkpoint == "best" else folder.last, remedy=_OTHERS[checkpoint])
    provenance = read_provenance(folder)
    if saved.get("provenance") not in (None, provenance and provenance.digest()):
        raise DataError(f"{folder.provenance}: not what the model was saved with; restore it, or start the run again")
    kernels, note = None, ""
    if provenance is not None:
        provenance.check_plugins(plugin_code(config))
        provenance.check_network(own_code(config), config.model.model_type)
        if provenance.kernels is not None and config.hardware.torch_device().type == "cpu":
            kernels, note = scored_with(provenance.kernels)
    public = {name: value for name, value in saved.items() if name != "noise_seed"}
    fixed = load_tensors(folder.fixed)[0]
    return OpenedRun(folder, checkpoint, config, provenance, public, tensors["parameters"], fixed, kernels, note)
