"""Rows of users, and fine-tuning against training by hand on the same split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.backends.threads import thread_backend
from fedflair.engine.flat_model import flatten
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.per_user import evaluate_per_user, personalisation_of
from fedflair.evaluation.personalise import split_images
from fedflair.federated.algorithms.base import local_training
from fedflair.federated.client import train_locally
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.metrics.per_user import USER_METRICS, user_metrics
from fedflair.sampling import stream
from tests.small_runs import small_config


def small_setup(store: Path, **options: Any) -> TrainingSetup:
    return make_setup(small_config(store, model="small_cnn", central_eval_batch_size=4, **options), 0)


@given(st.integers(2, 300), st.floats(0.01, 0.99))
def test_a_split_leaves_something_on_both_sides(num_images: int, fraction: float) -> None:
    tune, held_out = split_images(num_images, fraction, stream(0, "test"))
    assert len(tune) >= 1
    assert len(held_out) >= 1
    assert abs(len(tune) - fraction * num_images) <= 1
    assert sorted([*tune, *held_out]) == list(range(num_images))


def test_every_user_has_a_row_of_its_own_metrics(tiny_store: Path) -> None:
    setup = small_setup(tiny_store)
    parameters = initial_state(setup).parameters
    rows = evaluate_per_user(parameters, "train", setup=setup.worker)
    with thread_backend(setup.worker) as backend:
        logits = score_partition(parameters, "train", setup=setup.worker, backend=backend).logits
    assert [row["user_id"] for row in rows] == setup.worker.clients.partition.user_ids
    assert [row["num_images"] for row in rows] == [1, 2, 3, 5, 9, 4]
    for user, row in enumerate(rows):
        images = setup.worker.clients.partition.user_slice(user)
        labels = setup.worker.labels.targets(setup.worker.clients.partition, images)
        expected = user_metrics(logits[images.start : images.stop], labels)
        assert {name: row[name] for name in USER_METRICS} == pytest.approx(expected, abs=1e-6)
        assert row["num_labels"] == len(np.unique(np.nonzero(labels)[1]))


@pytest.mark.parametrize(("num_steps", "batch_size"), [(3, 16), (3, 1), (1, 2)])
def test_the_tuned_model_is_the_one_that_local_training_gives(
    tiny_store: Path, num_steps: int, batch_size: int
) -> None:
    setup = small_setup(tiny_store, local_batch_size=batch_size)
    parameters = initial_state(setup).parameters
    personalisation = personalisation_of(setup.config, num_steps, 0.4, 0.05)
    rows = evaluate_per_user(parameters, "train", setup=setup.worker, personalisation=personalisation)
    assert "personalised" not in rows[0]
    assert [(row["num_tune_images"], row["num_held_out_images"]) for row in rows[1:]] == [
        (1, 1), (1, 2), (2, 3), (4, 5), (2, 2)
    ]  # fmt: skip
    user = 4
    client = setup.worker.clients.load(setup.worker.clients.client_ids[user], None, stream(0, "unused"))
    generator = stream(0, "personalise", 0, client.client_id)
    tune, held_out = split_images(9, 0.4, generator)
    # No image more than the steps can take, so that each is drawn from those alone.
    used = tune[: num_steps * batch_size]
    part = replace(client, images=[client.images[k] for k in used], labels=client.labels[used])
    options = replace(local_training(setup.config, 0), num_steps=num_steps, learning_rate=0.05)
    delta, _ = train_locally(flatten(setup.worker.module, setup.worker.device), parameters, part, options, generator)
    with thread_backend(setup.worker) as backend:
        for model, vector in (("global", parameters), ("personalised", parameters + delta)):
            logits = score_partition(vector, "train", setup=setup.worker, backend=backend).logits
            own = logits[setup.worker.clients.images_of(user)][held_out]
            assert rows[user][model] == pytest.approx(user_metrics(own, client.labels[held_out]), abs=1e-5)
    assert rows[user]["global"]["loss"] != pytest.approx(rows[user]["personalised"]["loss"], abs=1e-4)


def test_rows_do_not_depend_on_threads(tiny_store: Path) -> None:
    found = []
    for num_threads in (1, 2):
        setup = small_setup(tiny_store, num_threads=num_threads)
        personalisation = personalisation_of(setup.config, 2, 0.5, None)
        parameters = initial_state(setup).parameters
        found.append(evaluate_per_user(parameters, "train", setup=setup.worker, personalisation=personalisation))
    assert found[0] == found[1]
