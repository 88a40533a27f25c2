"""The model that a run starts from: its weights when the run begins, and what is kept of it in its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.privacy.contract import Origin


@dataclass(frozen=True)
class Start:
    """record: what provenance keeps (``evaluation/start.py``). labels: the model's.

    tensors: of the whole network, by name; none once the run has begun, as its checkpoints have everything then.
    """

    record: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.record.get("model"))

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Raises ConfigError where the run learns others, or in another order."""
        if labels == self.labels:
            return
        if len(labels) != len(self.labels):
            raise ConfigError(
                f"start_from: {self.name} has {len(self.labels):,} labels, and this run learns {len(labels):,}; choose "
                "the same labels, or another model"
            )
        position = next(k for k, (own, other) in enumerate(zip(labels, self.labels)) if own != other)
        raise ConfigError(
            f"start_from: label {position + 1} of {self.name} is {self.labels[position]!r}, and this run's is "
            f"{labels[position]!r}; choose the same labels, or another model"
        )

    def load(self, module: nn.Module) -> None:
        """Gives the network all of the model's weights. Raises ConfigError where they are not those of this network."""
        try:
            module.load_state_dict(dict(self.tensors), strict=True)
        except RuntimeError as error:
            words = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"start_from: the weights of {self.name} are not those of this run's network ({words}); give the "
                "options of its network"
            ) from error


def origin_of(record: Mapping[str, Any] | None, store: str) -> Origin | None:
    """What a run on the store with that fingerprint can say of the model that it started from; None without one."""
    if record is None:
        return None
    trained_on = record.get("store")
    promised = record.get("promised")
    numbers = (None, None, None)
    if isinstance(promised, Mapping):
        numbers = (promised.get("epsilon"), promised.get("delta"), promised.get("neighbouring"))
    return Origin(
        str(record.get("model")),
        None if trained_on is None else trained_on == store,
        bool(record.get("private")),
        *numbers,
    )
