"""What only a GPU can show: graphs against the same steps without them, clients in flight, evaluation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.device_step import DeviceExamples
from fedflair.engine.flat_model import Precision, flatten
from fedflair.evaluation.partition import score_partition
from fedflair.federated.client import LocalTraining, local_batches, train_locally
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models import multi_label_cnn
from fedflair.sampling import stream
from fedflair.training.round import run_round
from tests.conftest import jpeg

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

OPTIONS = LocalTraining(learning_rate=0.01, num_epochs=2, batch_size=16, max_grad_norm=10.0, image_size=64)


def client(num_images: int) -> ClientData:
    labels = (np.random.default_rng(num_images).random((num_images, 4)) < 0.5).astype(np.uint8)
    return ClientData("someone", [np.frombuffer(jpeg(k), dtype=np.uint8) for k in range(num_images)], labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_replayed_steps_equal_those_without_a_graph(precision: Precision, pretrained: bool) -> None:
    module = multi_label_cnn.build("resnet18", 4, pretrained=pretrained, weights=None, seed=0)
    device = torch.device("cuda")
    graphed, eager = (flatten(copy.deepcopy(module), device, precision, cuda_graphs=on) for on in (True, False))
    server = eager.parameters.clone()
    for num_images in (1, 2, 3, 7, 18):
        deltas = []
        # The first pass of each size captures, the second only replays.
        for model in (eager, graphed, graphed):
            delta, metrics = train_locally(model, server, client(num_images), OPTIONS, stream(0, "client"))
            assert np.isfinite(metrics.loss)
            deltas.append(delta)
        size = float(deltas[0].norm())
        assert size > 0
        # Padded batches may take other kernels, which round elsewhere; a wrong step would be off by about 1.
        assert float((deltas[1] - deltas[0]).norm()) < (0.05 if precision == "fp32" else 0.2) * size
        assert float((deltas[2] - deltas[1]).norm()) < 0.01 * size
    assert graphed.on_device is not None
    assert sorted(graphed.on_device.steps) == [(n, 4, 64, True) for n in (1, 2, 4, 8, 16)]


def config(store: Path, **options: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "data_path": store,
        "pretrained": False,
        "image_size": 64,
        "cohort_size": 5,
        "central_lr_num_warmup_iterations": 0,
        "central_optimizer": "sgd",
        "device": "cuda",
    }
    return TrainConfig.of(**{**defaults, **options})


@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox", "scaffold"])
def test_rounds_follow_the_cpus_whatever_is_in_flight(tiny_store: Path, algorithm: str) -> None:
    ends = []
    for device, num_threads in (("cpu", 2), ("cuda", 1), ("cuda", 4)):
        setup = make_setup(
            config(tiny_store, algorithm_name=algorithm, device=device, num_threads=num_threads), noise_seed=0
        )
        state = start = initial_state(setup)
        with thread_backend(setup.worker) as backend:
            for _ in range(3):
                state, _ = run_round(state, setup.sampler.sample(state.round), setup=setup, backend=backend)
        ends.append((state.parameters - start.parameters).cpu())
    size = float(ends[0].norm())
    assert float((ends[1] - ends[0]).norm()) < 0.2 * size
    assert float((ends[2] - ends[1]).norm()) < 0.05 * size


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_follow_the_cpus(tiny_store: Path, precision: Precision) -> None:
    logits = []
    for options in ({"device": "cpu"}, {"device": "cuda", "precision": precision}):
        setup = make_setup(config(tiny_store, central_eval_batch_size=4, **options), noise_seed=0)
        with thread_backend(setup.worker) as backend:
            logits.append(
                score_partition(initial_state(setup).parameters, "val", setup=setup.worker, backend=backend).logits
            )
    assert np.abs(logits[0] - logits[1]).max() < 0.05 * np.abs(logits[0]).max()


def test_nothing_in_a_client_waits_for_the_gpu() -> None:
    module = multi_label_cnn.build("resnet18", 4, pretrained=False, weights=None, seed=0)
    model = flatten(module, torch.device("cuda"))
    server = model.parameters.clone()
    data = client(3)
    generator = stream(0, "client")
    # Captures, which waits.
    train_locally(model, server, data, OPTIONS, generator)
    examples = DeviceExamples(model, data, image_size=64, batch_size=16, generator=generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step = examples.plain_steps(0.01, 10.0)
        losses = [step(batch) for batch in local_batches(3, OPTIONS, generator)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for loss in losses)
