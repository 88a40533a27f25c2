"""What a run writes into its folder as it goes: the row of each round, checkpoints, and the summary at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedflair import __version__
from fedflair.backends.contract import Backend
from fedflair.errors import DataError
from fedflair.evaluation.examples import surest
from fedflair.evaluation.partition import Scores, score_partition
from fedflair.evaluation.users import federated_evaluation
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.participation import Participation
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup
from fedflair.metrics.left_out import ap_without_groups, groups_of_images
from fedflair.metrics.per_user import UserAverages
from fedflair.metrics.pfl import bucket_counts
from fedflair.privacy.ledger import coverage
from fedflair.runs.environment import Entry
from fedflair.runs.folder import RunFolder
from fedflair.runs.json_text import dumps
from fedflair.runs.tensors import load_facts, load_tensors, save_tensors
from fedflair.system.files import write_atomically
from fedflair.training.round import is_private


def round_row(
    setup: TrainingSetup, state: ServerState, cohort_sum: UpdateSum, answers: Participation, seconds: float
) -> dict[str, Any]:
    """The row of ``metrics.jsonl`` for the round that led to ``state``; of a secret cohort, nothing that counts it."""
    num_examples = cohort_sum.metrics.num_examples
    row: dict[str, Any] = {
        "round": state.round,
        "train/loss": cohort_sum.metrics.loss if num_examples else None,
        "train/num_clients": cohort_sum.cohort.num_clients if setup.worker.algorithm.federated else 0,
        "train/num_examples": num_examples,
        "train/num_rejected": cohort_sum.cohort.num_rejected,
        "train/seconds": seconds,
        "train/images_per_second": num_examples / seconds,
    }
    for moment in ("before", "after"):
        averages: UserAverages = getattr(cohort_sum.metrics, moment)
        if averages.num_users:
            row |= _prefixed(f"train_{moment}", averages.means())
    for name, tensor in state.algorithm_state.items():
        if tensor.ndim == 0 and tensor.isfinite():
            row[f"algorithm/{name}"] = tensor.item()
    if setup.mechanism.name != "none":
        row["privacy/num_clipped"] = cohort_sum.cohort.num_clipped
        row["privacy/clipping_bound"] = setup.mechanism.clipping_bound(state.mechanism_state)
        row["privacy/noise_std"] = setup.mechanism.noise_std(state.mechanism_state, state.round)
    if noisy := setup.mechanism.noisy_metrics(state.mechanism_state):
        # In their place: the same without noise beside them would leave nothing that epsilon covers.
        del row["train/loss"]
        row |= _prefixed("private", noisy)
    if cohort_sum.release is not None:
        row["privacy/estimated_signal_to_noise"] = cohort_sum.release.signal_to_noise
    row |= answers.row()
    return coverage.without_cohort(row) if is_private(setup) else row


def evaluated(setup: TrainingSetup, state: ServerState, backend: Backend) -> dict[str, float]:
    """Columns of an evaluation: ``val/...``; ``val_pfl/...`` with ``like: pfl``; with ``val_cohort_size`` also
    ``val_federated/...``.
    """
    scores = score_partition(state.parameters, "val", setup=setup.worker, backend=backend)
    columns = _prefixed("val", scores.metrics())
    if setup.config.algorithm.like == "pfl":
        columns |= _prefixed("val_pfl", bucket_counts(scores.logits, scores.targets).average_precision())
    if setup.config.evaluation.val_cohort_size:
        cohort = federated_evaluation(state.parameters, "val", state.round, setup=setup.worker, backend=backend)
        columns |= _prefixed("val_federated", cohort)
    return columns


def is_better(score: float | None, facts: Mapping[str, Any]) -> bool:
    """Whether a model of this score (None: no evaluation; NaN: no label to score) is to be kept as the best so far."""
    if score is None:
        return False
    return facts["best_round"] == 0 or (math.isfinite(score) and (facts["best"] is None or score > facts["best"]))


def save_best(folder: RunFolder, state: ServerState, facts: Mapping[str, Any]) -> None:
    """Saves the model that is the best on val so far; without secrets, since people hand it on."""
    public = {name: value for name, value in facts.items() if name not in ("noise_seed", "round")}
    save_tensors(folder.best, {"parameters": state.parameters}, public)


def restore_best(folder: RunFolder, state: ServerState, facts: Mapping[str, Any]) -> None:
    """Saves the best model where a run was killed between the checkpoint that it resumes from and that model."""
    saved = load_facts(folder.best) if folder.best.is_file() else {"best_round": 0}
    # What cannot be read, or is of another round, is no trace of a kill, and refused when it is used.
    if 0 < state.round == facts["best_round"] > (saved or facts)["best_round"]:
        save_best(folder, state, facts)


def summarise(
    setup: TrainingSetup,
    folder: RunFolder,
    num_rounds: int,
    facts: dict[str, Any],
    backend: Backend,
    environment: Sequence[Entry],
) -> dict[str, Any]:
    """Scores the best model on val and test, and writes the summary and each label's AP; returns the summary.

    environment: what made the run, which the summary ends with.
    """
    tensors, saved = load_tensors(folder.best, remedy="restore it, or start the run again")
    if saved["best_round"] != facts["best_round"]:
        raise DataError(
            f"{folder.best}: the model of round {saved['best_round']}, where the best was in round "
            f"{facts['best_round']}; restore it, or start the run again"
        )
    best = tensors["parameters"].to(setup.worker.device)
    scores = score_partition(best, "test", setup=setup.worker, backend=backend)
    test = scores.measured()
    write_atomically(folder.label_ap, dumps(test.label_ap_by_name(setup.worker.labels.names)) + "\n")
    privacy, local_privacy = dict(setup.mechanism.description), dict(setup.worker.local_mechanism.description)
    promised = coverage.is_promised(privacy, local_privacy)
    write_atomically(folder.test_details, dumps(_details(setup, scores, promised=promised)) + "\n")
    summary = {
        "setting": setup.config.setting,
        "rounds": num_rounds,
        "best_round": facts["best_round"],
        "seconds": facts["seconds"],
        "val": score_partition(best, "val", setup=setup.worker, backend=backend).metrics(),
        "test": test.values(),
        coverage.FIELD: coverage.SUMMARY if promised else None,
        "privacy": privacy or None,
        "local_privacy": local_privacy or None,
        "num_parameters": best.numel(),
        "ledger": facts.get("ledger"),
        "device": str(setup.worker.device),
        "version": __version__,
        "environment": list(environment),
    }
    write_atomically(folder.summary, dumps(summary, indent=2) + "\n")
    return summary


def _details(setup: TrainingSetup, scores: Scores, *, promised: bool) -> dict[str, Any]:
    """What a report wants to know of the best model on test beside its scores. promised: whether the run is private."""
    test = setup.worker.store.partitions["test"]
    groups = groups_of_images(test.columns.user_offsets)
    details: dict[str, Any] = {
        "left_out": ap_without_groups(scores.logits, scores.targets, groups),
        "examples": surest(scores, setup.worker.labels.names, test),
    }
    return details | ({coverage.FIELD: ["left_out", "examples"]} if promised else {})


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
