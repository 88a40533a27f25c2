"""What another run starts from: the model of a run, or an exported one, and what is kept of where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError, FedflairError
from fedflair.evaluation.export import whole_network
from fedflair.evaluation.exported import Exported, read_export
from fedflair.evaluation.opened import OpenedRun, open_run
from fedflair.federated.setup import groups_of, mechanisms_of
from fedflair.federated.start import Start, origin_of
from fedflair.privacy.contract import Origin
from fedflair.privacy.ledger import coverage
from fedflair.privacy.mechanisms.origin import promised_by
from fedflair.runs.folder import RunFolder

# model, model_type and pretrained, which together make a network.
_Network = tuple[str, str, bool]


def open_start(config: TrainConfig) -> Start | None:
    """The model that the configuration starts from; None where it names none.

    Raises ConfigError and DataError, naming the option, where there is no such model or it is of another network.
    """
    place = config.model.start_from
    if place is None:
        return None
    try:
        if RunFolder(place).config.is_file():
            return _of_run(open_run(place, config.model.start_from_checkpoint), config)
        if not place.exists():
            raise DataError(f"{place}: no such run, nor an exported model")
        return _of_export(read_export(place), config)
    except FedflairError as error:
        words = str(error)
        raise type(error)(words if words.startswith("start_from") else f"start_from: {words}") from error


def _of_run(opened: OpenedRun, config: TrainConfig) -> Start:
    theirs = opened.config.model
    _check_network(config, (theirs.model, theirs.model_type, theirs.pretrained), opened.folder.path)
    labels = opened.labels
    tensors = {name: tensor.detach() for name, tensor in whole_network(opened).state_dict().items()}
    provenance = opened.provenance
    record = {
        "model": str(opened.folder.path),
        "checkpoint": opened.checkpoint,
        "round": opened.saved.get("best_round" if opened.checkpoint == "best" else "round"),
        "weights": _digest(tensors),
        "store": None if provenance is None else provenance.store,
        "provenance": None if provenance is None else provenance.digest(),
        "private": opened.promises_epsilon,
        "promised": _promised_by_run(opened),
    }
    return Start(record, labels, tensors)


def _of_export(exported: Exported, config: TrainConfig) -> Start:
    if config.model.start_from_checkpoint != "best":
        raise ConfigError(f"start_from_checkpoint: {exported.file} is one model; drop the option")
    network = exported.network
    _check_network(config, (network.model, network.model_type, network.pretrained), exported.file)
    made_by = _mapping(exported.facts.get("made_by"))
    provenance = _mapping(made_by.get("provenance"))
    store = provenance.get("store")
    record = {
        "model": str(exported.file),
        "checkpoint": _plain(made_by.get("checkpoint")),
        "round": _plain(made_by.get("round")),
        "weights": _digest(exported.tensors),
        "store": store if isinstance(store, str) else None,
        "provenance": None,
        "private": coverage.FIELD in exported.facts,
        # What a file from elsewhere promises, nothing here can be held to.
        "promised": None,
    }
    return Start(record, exported.labels, exported.tensors)


def _promised_by_run(opened: OpenedRun) -> dict[str, Any] | None:
    """What the run's users were promised, made anew from its options; None where that is nothing, or no number."""
    provenance = opened.provenance
    if provenance is None or provenance.num_clients is None or not opened.promises_epsilon:
        return None
    before: Origin | None = origin_of(provenance.started_from, provenance.store)
    groups = groups_of(opened.config, len(provenance.labels))
    central, local = mechanisms_of(opened.config, provenance.num_clients, 0, None, groups, before)
    if local.description.get("delta") is not None:
        return None
    found = promised_by(central.description, before)
    return None if found is None else dict(zip(("epsilon", "delta", "neighbouring"), found))


def _check_network(config: TrainConfig, theirs: _Network, place: Path) -> None:
    model = config.model
    ours = (model.model, model.model_type, model.pretrained)
    if _told(ours) != _told(theirs):
        kind = f"--model {theirs[0]}" if theirs[0] != "multi_label_cnn" else f"--model_type {theirs[1]}"
        raise ConfigError(
            f"start_from: {place} is {_told(theirs)}, and this run trains {_told(ours)}; give {kind} --pretrained "
            f"{str(theirs[2]).lower()}"
        )


def _told(network: _Network) -> str:
    model, model_type, pretrained = network
    if model != "multi_label_cnn":
        return model
    return f"{model_type} ({'pretrained: BatchNorm' if pretrained else 'not pretrained: GroupNorm'})"


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"\x1f{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> str | int | None:
    return value if isinstance(value, str | int) else None
