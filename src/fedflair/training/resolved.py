"""What a run's options came to where they leave it to the machine, to the network or to a mechanism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedflair.backends.threads import num_threads
from fedflair.config.effects import has_effect
from fedflair.federated.networks import trained_choice
from fedflair.federated.setup import TrainingSetup
from fedflair.models.preprocessing import preprocessing_of
from fedflair.privacy.ledger import coverage
from fedflair.runs.environment import Entry, Found, entry_of

# What an option says that leaves the choice to something else.
_OPEN = (None, "auto")
# An option -> what the description of its mechanism calls it.
_CENTRAL = {
    "accountant": "accountant",
    "central_privacy_mechanism": "mechanism",
    "num_buffers": "num_buffers",
    "central_order": "order",
    "min_separation": "min_separation",
    "population": "population",
    "noise_cohort_size": "noise_cohort_size",
    "adaptive_clipping_noise_std": "count_noise_std",
}


def resolved_options(setup: TrainingSetup) -> dict[str, Any]:
    """By published name, what each option came to that was left open and has an effect."""
    worker, config = setup.worker, setup.config
    found: dict[str, Any] = {
        "device": str(worker.device),
        "image_size": preprocessing_of(worker.module).size,
        "cohort_sampling": setup.sampler.description.kind,
    }
    if config.model.trainable == "lora":
        found["lora_alpha"] = trained_choice(config).lora_alpha
    found |= {option: setup.mechanism.description.get(name) for option, name in _CENTRAL.items()}
    found["local_order"] = worker.local_mechanism.description.get("order")
    known = {name: value for name, value in found.items() if value is not None}
    left_open = {n: v for n, v in known.items() if config.option(n) in _OPEN and has_effect(config, n)}
    if config.hardware.num_threads == 0:
        left_open["num_threads"] = num_threads(config, worker.device)
    return left_open


def environment_of(setup: TrainingSetup, round_: int, command: Sequence[str] | None) -> Entry:
    """What makes the run from after ``round_`` on. command: the words as they were typed."""
    worker = setup.worker
    descriptions: list[Mapping[str, Any]] = [setup.mechanism.description, worker.local_mechanism.description]
    return entry_of(
        Found(
            config=setup.config,
            store=worker.store,
            device=worker.device,
            kernels=worker.kernels,
            round=round_,
            command=command,
            resolved=resolved_options(setup),
            promised=coverage.is_promised(*descriptions),
        )
    )
