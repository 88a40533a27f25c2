"""An exported model: what is in its files, and how it is read again.

A folder with ``model.safetensors`` (the network's weights under their own names, and all that is known of them),
``model.json`` (what is known, for people and other programs) and ``README.md``; or the first file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from fedflair.config.names import OWN_NAMES
from fedflair.config.train_config import TrainConfig
from fedflair.data.images.preprocessing import Interpolation, Preprocessing
from fedflair.engine.cpu.choice import KINDS, Kind, Precision
from fedflair.engine.cpu.kernels import scored_with
from fedflair.engine.flat_model import parameter_vector
from fedflair.errors import ConfigError, DataError
from fedflair.evaluation.opened import Model
from fedflair.federated.model_setup import ModelSetup, make_model_setup
from fedflair.federated.plugins import own_code_of
from fedflair.models.multi_label_cnn import FAMILIES
from fedflair.models.preprocessing import with_preprocessing
from fedflair.privacy.ledger import coverage
from fedflair.runs.tensors import load_tensors

FORMAT, VERSION = "fedflair-model", 1
WEIGHTS, FACTS, CARD = "model.safetensors", "model.json", "README.md"
_REMEDY = "export it again with 'fedflair export'"
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Network:
    """Which network the weights are of; the options of the same names.

    own_code: SHA-256 of the files of people's own code that it is made by: plugins by module, a function by its name.
    kernels: what the run computed with on a CPU; None on a GPU.
    """

    model: str
    model_type: str
    pretrained: bool
    precision: Precision
    kernels: Kind | None
    plugins: tuple[str, ...]
    own_code: Mapping[str, str]

    @property
    def imported(self) -> tuple[str, ...]:
        """People's own code that has to be imported and called to make it."""
        prefix, _, name = self.model_type.partition(":")
        is_own = self.model == "multi_label_cnn" and bool(name) and prefix not in FAMILIES
        further = self.plugins if self.plugins or self.model in OWN_NAMES["model"] else (self.model,)
        return (*further, self.model_type) if is_own else further

    def config(self, size: int) -> TrainConfig:
        """The options that make it, for images of ``size`` pixels' side."""
        return TrainConfig.of(
            model=self.model,
            model_type=self.model_type,
            pretrained=self.pretrained,
            precision=self.precision,
            plugins=self.plugins,
            image_size=size,
        )


@dataclass(frozen=True)
class Exported:
    """What an exported model is. labels: one for each output. facts: all that the file says, as JSON has it."""

    file: Path
    network: Network
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


def read_export(path: Path) -> Exported:
    """Reads a folder or file that ``fedflair export`` wrote; no code is imported.

    Raises DataError where it is none, or is damaged.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; name a folder or a .safetensors file that 'fedflair export' wrote")
    if file.suffix == ".onnx":
        raise DataError(f"{file}: ONNX is for other runtimes; name the folder or the .safetensors file of the export")
    tensors, facts = load_tensors(file, remedy=_REMEDY)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DataError(f"{file}: not an exported model; {_REMEDY}")
    if facts.get("format_version") != VERSION:
        raise DataError(f"{file}: exported by a newer fedflair (format {facts.get('format_version')!r}); upgrade it")
    try:
        network, labels = _network(facts["network"]), tuple(facts["labels"])
        preprocessing = _preprocessing(facts["preprocessing"])
        if not labels or len(set(labels)) != len(labels) or not all(isinstance(name, str) for name in labels):
            raise ValueError("no labels")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({type(error).__name__} in what it says of itself); {_REMEDY}") from error
    return Exported(file, network, labels, preprocessing, tensors, facts)


def load_network(path: str | Path, *, allow_code: bool = False) -> nn.Module:
    """The network of an exported model with its weights, ready for ``network(inputs)``: logits float [n, labels].

    allow_code: import and call the model's own code where it has some. Raises as ``model_of_export``.
    """
    exported = read_export(Path(path))
    return _setup(exported, allow_code=allow_code).module.eval()


def model_of_export(path: Path, *, allow_code: bool = False) -> Model:
    """An exported model, ready to be used.

    allow_code: see ``load_network``. Raises DataError where the files are not what they should be, ConfigError where
    the network cannot be made here.
    """
    exported = read_export(path)
    setup = _setup(exported, allow_code=allow_code)
    facts = {"model": str(path)}
    if setup.device.type == "cpu" and exported.network.kernels is not None:
        note = scored_with(exported.network.kernels)[1]
        facts |= {"kernels": note} if note else {}
    if coverage.FIELD in exported.facts:
        facts[coverage.FIELD] = "every number here"
    return Model(setup, parameter_vector(setup.module, setup.device), facts)


def _setup(exported: Exported, *, allow_code: bool) -> ModelSetup:
    network, file = exported.network, exported.file
    if network.imported and not allow_code:
        raise DataError(
            f"{file}: its network is made by code of somebody's own ({', '.join(network.imported)}), which would be "
            "imported from here and called; add --allow_code where you trust it"
        )
    try:
        config = network.config(exported.preprocessing.size)
        kernels = None if network.kernels is None else scored_with(network.kernels)[0]
        here = own_code_of(config) if network.imported else {}
        for name, digest in network.own_code.items():
            if here.get(name) != digest:
                raise DataError(f"the file of {name} here is not the one that the model was made with; put it back")
        setup = make_model_setup(config, exported.labels, {}, kernels)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{file}: {error}") from error
    try:
        setup.module.load_state_dict(dict(exported.tensors), strict=True)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file}: its weights are not those of {network.model_type} here ({words}); {_REMEDY}"
        ) from error
    with_preprocessing(setup.module, exported.preprocessing)
    return setup


def _network(raw: Mapping[str, Any]) -> Network:
    """Raises KeyError, TypeError or ValueError where it is none."""
    texts = (raw["model"], raw["model_type"], *raw["plugins"], *raw["own_code"], *raw["own_code"].values())
    if not all(isinstance(text, str) for text in texts) or not isinstance(raw["pretrained"], bool):
        raise TypeError("not text")
    if raw["precision"] not in get_args(Precision) or raw["kernels"] not in (None, *KINDS):
        raise ValueError("unknown arithmetic")
    return Network(
        raw["model"],
        raw["model_type"],
        raw["pretrained"],
        raw["precision"],
        raw["kernels"],
        tuple(raw["plugins"]),
        dict(raw["own_code"]),
    )


def _preprocessing(raw: Mapping[str, Any]) -> Preprocessing:
    """Raises KeyError, TypeError or ValueError where it is none."""
    mean, deviation = (tuple(float(value) for value in raw[name]) for name in ("mean", "deviation"))
    size = raw["size"]
    if len(mean) != 3 or len(deviation) != 3 or not all(deviation) or type(size) is not int:
        raise ValueError("not of three channels")
    if not 0 < size <= _LARGEST_SIDE or raw["interpolation"] not in get_args(Interpolation):
        raise ValueError("no such inputs")
    return Preprocessing(
        (mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2]), size, raw["interpolation"]
    )
