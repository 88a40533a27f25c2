"""Training of the head alone, on features of whole images that are computed once: when, under which key, and how.

``trainable: head`` with ``local_augmentation: none`` makes all that comes before the head a function of the image.
Workers then run the network's body while features are missing (``evaluation/features.py``), and its head in the rounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.data.store.features import FeatureFiles, Features, FeatureType, features_folder, open_features
from fedflair.data.store.packed import PARTITIONS, Store
from fedflair.engine.cpu.choice import Kind
from fedflair.engine.flat_model import frozen_tensors
from fedflair.errors import DataError
from fedflair.models.frozen_body import Cut, cut_before_head
from fedflair.models.preprocessing import preprocessing_of

# Raised where the same network would give other features: a change of preprocessing, say.
_FORMAT = 1


@dataclass(frozen=True)
class OnFeatures:
    """The network before and after the cut, and the features of each partition; none while they are being computed.

    folder: where they are kept. kind: the type of their numbers.
    """

    cut: Cut
    folder: Path
    kind: FeatureType
    tables: Mapping[str, Features] = field(default_factory=dict)

    @property
    def network(self) -> nn.Module:
        """What a worker runs."""
        return self.cut.head if self.tables else self.cut.body

    def digests(self) -> dict[str, str]:
        """Of the features of each partition."""
        return {name: table.digest for name, table in self.tables.items()}


def trains_on_features(config: TrainConfig) -> bool:
    """Whether the options leave everything before the head without change or chance, and ask for its features."""
    return (
        config.model.trainable == "head"
        and config.local.local_augmentation == "none"
        and config.local.frozen_features != "off"
    )


def on_features(
    config: TrainConfig, store: Store, module: nn.Module, kernels: Kind, device: torch.device, own_code: str | None
) -> OnFeatures | None:
    """What training on features takes, without the features; None where the options or the network do not admit it."""
    kind = config.local.frozen_features
    if kind == "off" or not trains_on_features(config):
        return None
    preprocessing = preprocessing_of(module)
    size = config.data.image_size or preprocessing.size
    cut = cut_before_head(module, size)
    if cut is None:
        return None
    facts = {
        "format": _FORMAT,
        "store": store.fingerprint,
        "network": [config.model.model, config.model.model_type, own_code],
        "weights": _digest(frozen_tensors(module)),
        "inputs": [size, asdict(preprocessing)],
        "computed": [device.type, kernels, config.hardware.precision, kind],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]
    return OnFeatures(cut, features_folder(store.path, key), kind)


def opened(setup: OnFeatures, store: Store, digests: Mapping[str, str]) -> dict[str, Features]:
    """The features that another process computed or verified. Raises DataError where they are not here, or others."""
    tables = {}
    for name, digest in digests.items():
        found = open_features(FeatureFiles(setup.folder, name), store.partitions[name].num_images, verify=False)
        if found is None or found.digest != digest:
            raise DataError(
                f"{setup.folder}: does not have the run's features of {name}; put the store and the folder beside it "
                "where every machine finds them, or use --frozen_features off"
            )
        tables[name] = found
    return tables


def partitions_of(store: Store) -> list[str]:
    """Partitions whose features a run needs."""
    return [name for name in PARTITIONS if name in store.partitions]


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
