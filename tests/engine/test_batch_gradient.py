"""A batch's gradient in parts: the same as whole, and the same bits whoever computes the parts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedflair.backends.contract import Worker
from fedflair.backends.threads import thread_backend
from fedflair.engine import batch_gradient as module_under_test
from fedflair.engine.batch_gradient import batch_gradient, num_parts
from fedflair.engine.flat_model import FlatModel, Precision, flatten
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models import MODELS
from fedflair.training.round import run_round
from tests.conftest import write_tiny_store
from tests.small_runs import small_config

CPU = torch.device("cpu")


def model(precision: Precision = "fp32") -> FlatModel:
    network = MODELS["small_cnn"].build("", 4, pretrained=False, weights=None, seed=0)
    return flatten(network.train(), CPU, precision)


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    return inputs, (torch.rand(size, 4, generator=generator) < 0.3).float()


def test_only_clients_of_many_images_are_cut_into_parts() -> None:
    assert [num_parts(model(), examples, 16) for examples in (64, 65)] == [1, 2]
    assert [num_parts(model(), 100, size) for size in (4, 8, 16, 64)] == [1, 1, 2, 8]
    dropout = MODELS["multi_label_cnn"].build("squeezenet1_1", 4, pretrained=False, weights=None, seed=0)
    assert num_parts(flatten(dropout, CPU), 100, 16) == 1
    assert num_parts(flatten(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), CPU), 100, 16) == 2


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
@pytest.mark.parametrize("size", [16, 13, 1])
def test_the_sum_of_the_parts_is_the_whole(precision: Precision, tolerance: float, size: int) -> None:
    whole, cut = model(precision), model(precision)
    loss = batch_gradient(whole, *batch(size))
    assert batch_gradient(cut, *batch(size), parts=3).item() == pytest.approx(loss.item(), rel=tolerance)
    distance = torch.linalg.vector_norm(cut.gradients - whole.gradients) / torch.linalg.vector_norm(whole.gradients)
    assert distance < tolerance


def test_idle_workers_take_parts_and_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_tiny_store(tmp_path / "store.hdf5", {"train": (70, 1, 2), "val": (3,), "test": (4,)})
    threads: set[str] = set()
    plain = module_under_test._part_elsewhere

    def noted(*arguments: Any) -> torch.Tensor:
        threads.add(threading.current_thread().name)
        return plain(*arguments)

    monkeypatch.setattr(module_under_test, "_part_elsewhere", noted)
    finals = []
    for num_threads, helpers in ((1, 0), (3, 2)):
        setup = make_setup(
            small_config(store, model="small_cnn", local_batch_size=32, num_threads=num_threads), noise_seed=0
        )
        with thread_backend(setup.worker) as backend:
            state, _ = run_round(
                initial_state(setup), list(setup.worker.clients.client_ids), setup=setup, backend=backend
            )
        assert bool(threads) == bool(helpers) and all(name.startswith("part") for name in threads)
        finals.append(state.parameters)
    assert torch.equal(finals[0], finals[1])


def test_an_error_in_a_lent_part_is_raised_and_the_worker_comes_back(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, model="small_cnn", num_threads=2), noise_seed=0)
    with thread_backend(setup.worker) as backend:
        for _ in range(3):
            with pytest.raises(ValueError, match="size"):
                list(backend.map_unordered(_wrong_targets, None, [0]))
        assert [result for _, result in backend.map_unordered(_nothing, None, [0, 1])] == ["ok", "ok"]


def _wrong_targets(worker: Worker, shared: None, item: int) -> None:
    batch_gradient(worker.model, batch(16)[0], torch.zeros(16, 9), parts=2)


def _nothing(worker: Worker, shared: None, item: int) -> str:
    return "ok"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 7])
def test_a_linear_layer_s_gradient_is_autograd_s(size: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=bias)
    inputs, targets = torch.randn(size, 6), (torch.rand(size, 4) < 0.4).float()
    loss = nn.functional.binary_cross_entropy_with_logits(layer(inputs), targets)
    expected = torch.autograd.grad(loss, list(layer.parameters()))
    flat = flatten(layer, CPU)
    flat.gradients.fill_(9.0)
    before = inputs.clone(), targets.clone()
    assert batch_gradient(flat, inputs, targets, parts=2).item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(flat.gradients, torch.cat([g.reshape(-1) for g in expected]), rtol=1e-5, atol=1e-7)
    assert torch.equal(inputs, before[0])
    assert torch.equal(targets, before[1])
