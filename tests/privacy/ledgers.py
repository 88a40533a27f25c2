"""A finished run's folder for the tests of its ledger: made in a moment, with nothing trained."""

from __future__ import annotations

import json
from pathlib import Path

from fedflair.privacy.contract import BINDING, MechanismState, encoded
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.runs.tensors import save_tensors
from fedflair.sampling import SamplerDescription

SEED = 3 << 100
ROUNDS = 6
COHORTS = (20, 17, 0, 25, 21, 19)


def small_mechanism() -> Mechanism:
    """Of 6 rounds, with noise for larger cohorts than the run's: epsilon 2 of the deployment it simulates."""
    options = PrivacyOptions("gaussian_moments_accountant", delta=1e-4, noise_cohort_size=40)
    return make_mechanism(options, SamplerDescription("poisson", 20, 400), ROUNDS, SEED)


def after(round_: int) -> MechanismState:
    """A mechanism's state after a round, bound to nothing in particular."""
    return {BINDING: encoded(f"{round_:032x}")}


def finished_run(folder: Path, mechanism: Mechanism) -> Path:
    """Ledger, checkpoint and summary."""
    folder.mkdir()
    book = ledger.create(folder, mechanism, SEED)
    for round_ in range(ROUNDS):
        book = ledger.append(book, round_, CohortStats(COHORTS[round_], 0, 0), {}, after(round_))
    save_tensors(folder / "checkpoints" / "last.safetensors", {}, {"round": ROUNDS, "noise_seed": str(SEED)})
    (folder / "summary.json").write_text(json.dumps({"rounds": ROUNDS}))
    return folder
