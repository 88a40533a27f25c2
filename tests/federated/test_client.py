"""Local training against torch.optim.SGD, and its randomness."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData, natural_users
from fedflair.data.store.labels import label_space
from fedflair.data.store.packed import open_store
from fedflair.engine.flat_model import flatten
from fedflair.federated.algorithms.base import local_training
from fedflair.federated.client import LocalTraining, local_batches, sgd_step, train_locally
from fedflair.sampling import stream

OPTIONS = LocalTraining(learning_rate=0.1, num_epochs=2, batch_size=4, max_grad_norm=0.05, image_size=16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))


def test_a_step_by_hand() -> None:
    # logit = w x with w = 0, x = 2, y = 1: gradient = (sigmoid(0) - 1) * 2 = -1, clipped to norm 0.05.
    model = flatten(nn.Linear(1, 1, bias=False), torch.device("cpu"))
    model.parameters.zero_()
    loss = sgd_step(model, torch.tensor([[2.0]]), torch.tensor([[1.0]]), OPTIONS)
    assert abs(float(loss) - np.log(2)) < 1e-6
    assert abs(float(model.parameters) - 0.1 * 0.05) < 1e-6


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
def test_steps_equal_torch_sgd_with_clipped_gradients(momentum: float, weight_decay: float) -> None:
    reference = network()
    model = flatten(network(), torch.device("cpu"))
    options = replace(OPTIONS, momentum=momentum, weight_decay=weight_decay)
    velocity = torch.zeros_like(model.parameters) if momentum else None
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        inputs = torch.randn(4, 3, 16, 16, generator=generator)
        targets = (torch.rand(4, 4, generator=generator) < 0.5).float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(reference(inputs), targets).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
        optimizer.step()
        sgd_step(model, inputs, targets, options, None, velocity)
    for ours, theirs in zip(model.module.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_update_depends_on_its_stream_alone(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    users = natural_users(store, "train", label_space(store, fine=False))
    model = flatten(network(), torch.device("cpu"))
    server = model.parameters.clone()
    deltas = []
    for round_ in (0, 0, 1):
        torch.manual_seed(len(deltas))
        client = users.load(users.client_ids[4], None, stream(0, "load"))
        delta, metrics = train_locally(model, server, client, OPTIONS, stream(0, "client", round_, client.client_id))
        deltas.append(delta)
    assert torch.equal(deltas[0], deltas[1])
    assert not torch.equal(deltas[0], deltas[2])
    assert (metrics.num_examples, metrics.num_steps) == (18, 6)
    assert metrics.loss > 0


def test_the_gradient_can_be_adjusted() -> None:
    model = flatten(nn.Linear(1, 1, bias=False), torch.device("cpu"))
    model.parameters.fill_(1.0)

    def pull(parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        gradients.copy_(parameters * 0.01)

    sgd_step(model, torch.tensor([[2.0]]), torch.tensor([[1.0]]), OPTIONS, pull)
    assert abs(float(model.parameters) - (1.0 - 0.1 * 0.01)) < 1e-6


def test_steps_instead_of_epochs_go_round_the_examples() -> None:
    # Seven examples in batches of 4: an epoch is 4 + 3; five steps are two epochs and the first batch of a third.
    options = replace(OPTIONS, num_steps=5)
    batches = [batch.tolist() for batch in local_batches(7, options, stream(0, "batches"))]
    assert [len(batch) for batch in batches] == [4, 3, 4, 3, 4]
    assert sorted(batches[0] + batches[1]) == sorted(batches[2] + batches[3]) == list(range(7))
    whole = [batch.tolist() for batch in local_batches(7, OPTIONS, stream(0, "batches"))]
    assert whole == batches[:4]


def test_one_order_for_all_passes_of_a_round_where_it_is_asked_for() -> None:
    """As pfl shuffles a user once: the same batches in each epoch, other ones in another round or of another client."""
    once = replace(OPTIONS, num_epochs=3, reshuffled=False)
    batches = [batch.tolist() for batch in local_batches(7, once, stream(0, "batches"))]
    assert batches == batches[:2] * 3
    assert sorted(batches[0] + batches[1]) == list(range(7))
    afresh = [batch.tolist() for batch in local_batches(7, replace(OPTIONS, num_epochs=3), stream(0, "batches"))]
    assert afresh[:2] == batches[:2] != afresh[2:4]
    config = TrainConfig.of(like="pfl")
    assert (local_training(config, 0).reshuffled, local_training(TrainConfig(), 0).reshuffled) == (False, True)


def test_full_batches_are_all_that_a_client_can_have() -> None:
    config = TrainConfig.of(local_batch_size=None, max_num_user_images=9)
    options = local_training(config, 0)
    assert [len(batch) for batch in local_batches(9, options, stream(0, "batches"))] == [9, 9]


def test_the_loss_is_the_mean_over_images_whatever_the_last_batch() -> None:
    # Photographs of one colour look alike in every crop, so that the loss of each can be had by itself.
    images = []
    for level in (10, 60, 110, 160, 210, 250, 255):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (level, 255 - level, level // 2)).save(buffer, "JPEG")
        images.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    labels = np.eye(7, 4, dtype=np.uint8)
    model = flatten(network(), torch.device("cpu"))
    server = model.parameters.clone()
    # Steps that move nothing: what is measured before each of them is the server's model.
    still = replace(OPTIONS, learning_rate=1e-30)

    def loss(chosen: list[int], generator: str) -> float:
        client = ClientData("c", [images[k] for k in chosen], labels[chosen])
        return train_locally(model, server, client, still, stream(0, generator))[1].loss

    alone = [loss([k], "one") for k in range(7)]
    assert np.std(alone) > 0.01
    for attempt in ("a", "b", "c"):
        assert loss(list(range(7)), attempt) == pytest.approx(np.mean(alone), rel=1e-5)


def test_every_client_and_round_has_dropout_of_its_own(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tiny_store)
    users = natural_users(store, "train", label_space(store, fine=False))
    model = flatten(network(), torch.device("cpu"))
    seeds: list[int] = []
    monkeypatch.setattr(
        "fedflair.federated.client.seed_dropout", lambda module, generator: seeds.append(generator.initial_seed())
    )
    streams = [(round_, client) for round_ in (0, 1) for client in users.client_ids]
    for round_, client_id in [*streams, *streams]:
        client = users.load(users.client_ids[0], None, stream(0, "load"))
        train_locally(model, model.parameters.clone(), client, OPTIONS, stream(0, "client", round_, client_id))
    assert len(set(seeds)) == len(streams)
    assert seeds[: len(streams)] == seeds[len(streams) :]


def test_momentum_and_steps_reach_local_training(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    users = natural_users(store, "train", label_space(store, fine=False))
    model = flatten(network(), torch.device("cpu"))
    server = model.parameters.clone()
    client = users.load(users.client_ids[2], None, stream(0, "load"))
    plain, _ = train_locally(model, server, client, OPTIONS, stream(0, "client"))
    heavy, metrics = train_locally(
        model, server, client, replace(OPTIONS, momentum=0.9, num_steps=5), stream(0, "client")
    )
    assert (metrics.num_examples, metrics.num_steps) == (15, 5)
    assert float(heavy.norm()) > float(plain.norm())
