"""Evaluation of val cohorts and of training cohorts, against the scores of whole partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.backends.threads import thread_backend
from fedflair.data.store.packed import open_store
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.users import federated_evaluation, user_groups
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.metrics.per_user import USER_METRICS, user_metrics
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.round import run_round
from fedflair.training.train import train
from tests.small_runs import small_config


def small_setup(store: Path, **options: Any) -> TrainingSetup:
    return make_setup(small_config(store, model="small_cnn", **options), 0)


def test_groups_keep_the_order_and_close_when_full(tiny_store: Path) -> None:
    partition = open_store(tiny_store).partitions["train"]  # 1, 2, 3, 5, 9 and 4 images
    assert list(user_groups(partition, range(6), 6)) == [[0, 1, 2], [3, 4], [5]]
    assert list(user_groups(partition, [4, 0], 1)) == [[4], [0]]
    assert list(user_groups(partition, [], 6)) == []


def test_a_cohort_of_everybody_against_the_whole_partition(tiny_store: Path) -> None:
    setup = small_setup(tiny_store, val_cohort_size=100, central_eval_batch_size=4)
    parameters = initial_state(setup).parameters
    with thread_backend(setup.worker) as backend:
        got = federated_evaluation(parameters, "val", 3, setup=setup.worker, backend=backend)
        scores = score_partition(parameters, "val", setup=setup.worker, backend=backend)
    # Users of 3 and 6 images.
    labels = setup.worker.labels.targets(setup.worker.store.partitions["val"], range(9))
    users = [user_metrics(scores.logits[part], labels[part]) for part in (slice(0, 3), slice(3, 9))]
    whole = scores.metrics()
    for name in USER_METRICS:
        one, other = users[0][name], users[1][name]
        assert got[name] == pytest.approx((one + other) / 2, abs=1e-6)
        assert got[f"image_weighted_{name}"] == pytest.approx((3 * one + 6 * other) / 9, abs=1e-6)
        assert got[f"pooled_{name}"] == pytest.approx(whole[name], abs=1e-6)
    assert got["pooled_macro_ap"] == pytest.approx(whole["macro_ap"])
    assert (got["num_users"], got["num_images"]) == (2, 9)
    by_user = {f"{kind}{name}" for kind in ("", "image_weighted_") for name in USER_METRICS}
    pooled = {f"pooled_{name}" for name in scores.measured().values() if name != "num_examples"}
    assert set(got) == {*by_user, *pooled, "num_users", "num_images"}


def test_each_round_draws_its_own_cohort(tiny_store: Path) -> None:
    setup = small_setup(tiny_store, val_cohort_size=1)
    parameters = initial_state(setup).parameters
    with thread_backend(setup.worker) as backend:
        rounds = [
            federated_evaluation(parameters, "val", round_, setup=setup.worker, backend=backend)
            for round_ in (*range(8), 0)
        ]
    assert {row["num_images"] for row in rounds} == {3, 6}
    assert rounds[0] == rounds[-1]


def test_local_evaluation_scores_each_client_before_and_after(tiny_store: Path) -> None:
    setup = small_setup(tiny_store, local_evaluation=True, local_learning_rate=0.01)
    state, client_id = initial_state(setup), setup.worker.clients.client_ids[3]
    with thread_backend(setup.worker) as backend:
        _, cohort_sum = run_round(state, [client_id], setup=setup, backend=backend)
        assert cohort_sum.delta is not None
        moved = [state.parameters, state.parameters + cohort_sum.delta]
        scores = [score_partition(parameters, "train", setup=setup.worker, backend=backend) for parameters in moved]
    own = setup.worker.clients.images_of(3)
    labels = setup.worker.labels.targets(setup.worker.clients.partition, own)
    for averages, partition in zip((cohort_sum.metrics.before, cohort_sum.metrics.after), scores):
        expected = user_metrics(partition.logits[own], labels)
        assert averages.means() == pytest.approx(expected, abs=1e-5)
        assert averages.num_images == 5
    assert cohort_sum.metrics.after.means()["loss"] < cohort_sum.metrics.before.means()["loss"]


def test_local_evaluation_does_not_depend_on_threads_and_changes_no_update(tiny_store: Path) -> None:
    def cohort_sum(**options: Any) -> UpdateSum:
        setup = small_setup(tiny_store, **options)
        with thread_backend(setup.worker) as backend:
            return run_round(initial_state(setup), setup.worker.clients.client_ids, setup=setup, backend=backend)[1]

    one, two = (cohort_sum(local_evaluation=True, num_threads=n) for n in (1, 2))
    without = cohort_sum()
    assert one.metrics == two.metrics
    assert one.metrics.before.num_users == one.metrics.after.num_users == 6
    assert without.metrics.before.num_users == 0
    np.testing.assert_array_equal(one.delta, without.delta)


def test_rows_of_a_run_hold_both(tiny_store: Path, tmp_path: Path) -> None:
    config = small_config(
        tiny_store, run=tmp_path / "run", model="small_cnn", val_cohort_size=2, local_evaluation=True,
        central_num_iterations=2,
    )  # fmt: skip
    first, second = read_rows(RunFolder(train(config)))
    assert {f"train_{moment}/{name}" for moment in ("before", "after") for name in USER_METRICS} <= set(first)
    assert not any(name.startswith("val") for name in first)
    assert second["val_federated/pooled_macro_ap"] == pytest.approx(second["val/macro_ap"])
    assert second["val_federated/num_users"] == 2
