"""A trained model: of a run, or exported; used on photographs, or as a plain network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from fedflair.api.checked import checked, path_of
from fedflair.api.predictions import Predictions
from fedflair.data.images.jpeg import pillow_unlimited
from fedflair.data.images.photographs import find_photographs
from fedflair.data.images.preprocessing import Preprocessing
from fedflair.data.store.packed import Store
from fedflair.data.store.packed import open_store as open_packed
from fedflair.engine.flat_model import set_parameters
from fedflair.errors import ConfigError, DataError
from fedflair.evaluation.exported import model_of_export
from fedflair.evaluation.opened import Model, OpenedRun
from fedflair.evaluation.predict import Files, Photographs, Prediction, Stored
from fedflair.evaluation.predict import predict as look
from fedflair.models.adapters import merge
from fedflair.models.preprocessing import preprocessing_of
from fedflair.runs.configuration import require_store
from fedflair.system.terminal import one_line

PartitionName = Literal["train", "val", "test"]


@dataclass(frozen=True, repr=False, eq=False)
class TrainedModel:
    """A model that can be used without a store, from ``Run.model`` or ``load_model``."""

    _model: Model
    _opened: OpenedRun | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """One for each output, in their order."""
        return self._model.setup.labels

    @property
    def facts(self) -> Mapping[str, str]:
        """Which model it is, and what is to be known of numbers that are computed with it."""
        return self._model.facts

    @property
    def preprocessing(self) -> Preprocessing:
        """What ``network`` wants: size, mean and deviation of its inputs, and how photographs are resized."""
        module, size = self._model.setup.module, self._model.setup.config.data.image_size
        return replace(preprocessing_of(module), size=size or preprocessing_of(module).size)

    @cached_property
    def network(self) -> nn.Module:
        """A copy as a plain module on the CPU, in ``eval`` mode: float [n, 3, size, size] -> logits [n, labels].

        What was added for training (LoRA, FiLM) is built into its weights.
        """
        module = copy.deepcopy(self._model.setup.module).to("cpu")
        set_parameters(module, self._model.parameters.to("cpu"))
        return merge(module).eval()

    def predict(
        self,
        *photographs: str | Path,
        partition: PartitionName | None = None,
        data_path: str | Path | None = None,
    ) -> Predictions:
        """The probability of each label of photographs: files, folders, or a store's partition.

        partition: of the store at ``data_path``, or of the run's own where that is not given.
        Photographs that cannot be read are left out, with a warning. Raises ConfigError and DataError, naming the
        argument or the file.
        """
        given = checked(_options, {"partition": partition, "data_path": data_path})
        places = tuple(path_of("photographs", place) for place in photographs)
        found = self._photographs(places, given["partition"], given["data_path"])
        names, rows, left_out = [], [], {}
        with pillow_unlimited(), warnings.catch_warnings():
            # What its decoders think of a photograph is nobody's concern that can be read.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for one in look(self._model, found):
                if isinstance(one, Prediction):
                    names.append(one.name)
                    rows.append(one.probabilities)
                else:
                    left_out[one.name] = one.why
        for why in left_out.values():
            warnings.warn(f"{one_line(why)}; left out", UserWarning, stacklevel=2)
        probabilities = np.stack(rows) if rows else np.empty((0, len(self.labels)), np.float32)
        return Predictions(tuple(names), self.labels, probabilities, left_out, dict(self.facts))

    def _photographs(self, places: tuple[Path, ...], partition: str | None, data_path: Path | None) -> Photographs:
        if bool(places) == (partition is not None):
            raise ConfigError("photographs: name files or folders, or a store's partition, and not both")
        if partition is None:
            if data_path is not None:
                raise ConfigError("data_path: say which partition of it with partition='test'")
            return Files(tuple(find_photographs(places)))
        store = self._store(data_path)
        if partition not in store.partitions or store.partitions[partition].num_images == 0:
            raise DataError(f"{store.path}: partition {partition!r} is empty; choose another one")
        return Stored(store.partitions[partition])

    def _store(self, data_path: Path | None) -> Store:
        if data_path is not None:
            return open_packed(data_path)
        if self._opened is None:
            raise ConfigError("partition: an exported model has no store; name one with data_path")
        require_store(self._opened.config)
        store = open_packed(self._opened.config.data.data_path)
        self._opened.check_store(store)
        return store

    def __repr__(self) -> str:
        model = self._model.setup.config.model
        name = model.model_type if model.model == "multi_label_cnn" else model.model
        facts = self.facts
        place = facts.get("model") or f"{facts.get('checkpoint')} of {facts.get('run')}"
        return f"<{one_line(name)}, {len(self.labels):,} labels: {one_line(place)}>"


def load_model(path: str | Path, *, allow_code: bool = False) -> TrainedModel:
    """The model that ``fedflair export`` wrote: a folder, or a ``.safetensors`` file.

    allow_code: import and call the code of somebody's own that its network is made by.
    Raises DataError where it is none or is damaged, ConfigError where its network cannot be made here.
    """
    return TrainedModel(model_of_export(path_of("path", path), allow_code=allow_code))


def _options(*, partition: PartitionName | None, data_path: Path | None) -> None:
    """What ``predict`` takes beside photographs, by type."""
