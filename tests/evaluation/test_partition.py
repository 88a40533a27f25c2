"""Scores of a partition: in the partition's order, for any number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fedflair.backends.threads import thread_backend
from fedflair.data.images.crops import decode, eval_inputs
from fedflair.evaluation.partition import score_partition
from fedflair.federated.setup import initial_state, make_setup
from tests.small_runs import small_config


def test_scores_of_a_partition_are_the_models_outputs(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, central_eval_batch_size=4), 0)
    parameters = initial_state(setup).parameters
    found = []
    for num_threads in (1, 3):
        options = {"num_threads": num_threads, "central_eval_batch_size": 4}
        setup = make_setup(small_config(tiny_store, **options), 0)
        with thread_backend(setup.worker) as backend:
            found.append(score_partition(parameters, "val", setup=setup.worker, backend=backend))
    partition = setup.worker.store.partitions["val"]
    with torch.inference_mode():
        inputs = eval_inputs(decode([partition.encoded(i) for i in range(9)]), 32)
        expected = setup.worker.module.eval()(inputs).numpy()
    np.testing.assert_allclose(found[0].logits, expected, atol=1e-5)
    np.testing.assert_array_equal(found[0].logits, found[1].logits)
    assert found[0].targets.num_examples == 9
    assert found[0].metrics()["num_examples"] == 9
