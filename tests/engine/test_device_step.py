"""The GPU's way of local training, run on the CPU, against the host's: every bucket, each option, whole rounds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fedflair.backends.contract import Backend, Task, Worker
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.data.images.on_device import cropped, decode_to, random_crops
from fedflair.engine.device_step import DeviceExamples, bucket, empty_inputs, step_function
from fedflair.engine.flat_model import FlatModel, Precision, flatten
from fedflair.engine.gpu.device_form import device_form
from fedflair.evaluation.partition import score_images
from fedflair.federated.client import LocalTraining, sgd_step, train_locally
from fedflair.federated.full_gradient import full_gradient
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models import multi_label_cnn, small_cnn
from fedflair.models.normalization import FrozenBatchNorm2d, replace_modules
from fedflair.sampling import stream
from fedflair.training.round import run_round
from tests.conftest import jpeg

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_operator_thread")

OPTIONS = LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=12, max_grad_norm=1.0, image_size=32)

# A pixel in a hundred thousand is a level of 255 apart, and where two values tie but for rounding, ReLU and max pooling
# go either way. Another crop, order or mask would be off by about 1.
ROUNDING = 0.03


class Replays:
    """Stands in for ``GraphCapture``: a few real runs, then the function itself."""

    def __init__(self) -> None:
        self.num_captured = 0

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self.num_captured += 1
        for _ in range(3):
            function()
        return function


def network(norm: str = "group") -> nn.Module:
    """small_cnn, with frozen BatchNorm in place of GroupNorm where ``norm`` says so; always the same."""
    return with_norm(small_cnn.build("", 4, pretrained=False, weights=None, seed=1), norm)


def with_norm(module: nn.Module, norm: str) -> nn.Module:
    if norm == "frozen":
        replace_modules(module, nn.GroupNorm, lambda old: FrozenBatchNorm2d(old.num_channels, old.eps))
    return module


def host_model(module: nn.Module, precision: Precision = "fp32") -> FlatModel:
    """The plain module, since that is what runs on a GPU."""
    return replace(flatten(module, CPU, precision), fast=None)


def device_model(module: nn.Module, precision: Precision = "fp32", capture: bool = True) -> FlatModel:
    model = host_model(module, precision)
    form = device_form(module, CPU, cuda_graphs=False)
    return replace(model, on_device=replace(form, capture=Replays() if capture else None))


def client(num_images: int) -> ClientData:
    labels = (np.random.default_rng(num_images).random((num_images, 4)) < 0.5).astype(np.uint8)
    return ClientData("someone", [np.frombuffer(jpeg(k), dtype=np.uint8) for k in range(num_images)], labels)


def examples_of(model: FlatModel, data: ClientData, batch_size: int = 12) -> DeviceExamples:
    return DeviceExamples(model, data, image_size=32, batch_size=batch_size, generator=stream(0, "client"))


def assert_near(ours: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert float(expected.norm()) > 0
    assert float((ours - expected).norm() / expected.norm()) < tolerance


def test_buckets() -> None:
    assert [bucket(n, 16) for n in range(1, 17)] == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16]
    assert [bucket(n, 100) for n in (17, 24, 25, 33, 49, 65, 97, 100)] == [24, 24, 32, 48, 64, 96, 100, 100]
    assert [bucket(n, 5) for n in (3, 4, 5)] == [4, 4, 5]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_padding_changes_nothing(precision: Precision, norm: str) -> None:
    module = network(norm)
    model, plain = device_model(copy.deepcopy(module), precision), host_model(module, precision)
    data = client(12)
    pixels, targets = decode_to(data.images, CPU), torch.from_numpy(data.labels).float()
    assert model.on_device is not None
    for num_examples in (1, 2, 3, 5, 9, 12):
        batch = np.arange(12)[::-1][:num_examples].copy()
        crops = torch.from_numpy(random_crops(num_examples, stream(0, "client")))
        inputs = cropped(pixels[batch], crops, 32, model.on_device.normalisation)
        before = plain.parameters.clone()
        loss = sgd_step(plain, inputs, targets[batch], OPTIONS)
        loss_sum = examples_of(model, data).plain_steps(0.05, 1.0)(batch)
        assert abs(float(loss_sum) / num_examples - float(loss)) < 1e-6
        # Other sizes of batch may add up in another order, and in bf16 round elsewhere.
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        assert_near(model.parameters - before, plain.parameters - before, tolerance)
        model.load(plain.parameters)


def test_a_size_is_captured_once_and_its_trial_runs_leave_no_trace() -> None:
    model = device_model(network())
    assert model.on_device is not None
    data, server = client(11), model.parameters.clone()
    first, _ = train_locally(model, server, data, replace(OPTIONS, batch_size=4), stream(0, "client"))
    # Batches of 4, 4 and 3, all of which have four rows.
    assert list(model.on_device.steps) == [(4, 4, 32, True)]
    again, _ = train_locally(model, server, data, replace(OPTIONS, batch_size=4), stream(0, "client"))
    assert torch.equal(first, again)
    assert isinstance(model.on_device.capture, Replays)
    assert model.on_device.capture.num_captured == 1
    other, _ = train_locally(
        device_model(network(), capture=False), server, data, replace(OPTIONS, batch_size=4), stream(0, "client")
    )
    assert_near(other, first, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"num_steps": 3, "batch_size": 4},
        {"max_grad_norm": 0.01},
    ],
)
@pytest.mark.parametrize("adjusted", [False, True])
def test_local_training_follows_the_hosts(options: dict[str, Any], adjusted: bool) -> None:
    training, data = replace(OPTIONS, **options), client(9)
    server = flatten(network(), CPU).parameters.clone()

    def pull(parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        gradients.add_(parameters - server, alpha=5.0).add_(0.01)

    deltas, metrics, after = [], [], []
    for model in (host_model(network()), device_model(network())):
        generator = stream(0, "client")
        delta, measured = train_locally(model, server, data, training, generator, pull if adjusted else None)
        deltas.append(delta)
        metrics.append(measured)
        after.append(generator.random())
    assert after[0] == after[1]
    assert_near(deltas[1], deltas[0], ROUNDING)
    assert (metrics[0].num_examples, metrics[0].num_steps) == (metrics[1].num_examples, metrics[1].num_steps)
    assert metrics[1].loss == pytest.approx(metrics[0].loss, abs=1e-3)


def test_dropout_draws_the_hosts_masks() -> None:
    # Runs as it is written: no padding, nothing captured.
    module = multi_label_cnn.build("squeezenet1_1", 4, pretrained=False, weights=None, seed=1)
    model = host_model(module)
    server = model.parameters.clone()
    on_device = replace(model, on_device=device_form(model.module, CPU, cuda_graphs=True))
    assert on_device.on_device is not None and on_device.on_device.capture is None
    data, training = client(5), replace(OPTIONS, batch_size=3, learning_rate=0.01)
    expected, _ = train_locally(model, server, data, training, stream(0, "client"))
    ours, _ = train_locally(on_device, server, data, training, stream(0, "client"))
    assert_near(ours, expected, 0.05)
    assert on_device.on_device.steps == {}


def test_the_whole_gradient_follows_the_hosts() -> None:
    data, training = client(7), replace(OPTIONS, batch_size=4)
    server = flatten(network(), CPU).parameters.clone()
    expected, host = full_gradient(host_model(network()), server, data, training, stream(0, "client"))
    ours, device = full_gradient(device_model(network()), server, data, training, stream(0, "client"))
    assert_near(ours, expected, ROUNDING)
    assert (device.num_examples, device.num_steps) == (host.num_examples, host.num_steps) == (7, 2)
    assert device.loss == pytest.approx(host.loss, abs=1e-3)


def backend_of(workers: list[Worker]) -> Backend:
    """Hands out items in turn, as ``thread_backend`` does without its threads."""

    def map_unordered(
        task: Task, shared: Any, items: Iterable[Any], *, summed: bool = False
    ) -> Iterator[tuple[int, Any]]:
        for position, item in enumerate(items):
            yield position, task(workers[position % len(workers)], shared, item)

    return Backend(len(workers), map_unordered)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "central"])
def test_whole_rounds_follow_the_hosts_for_any_number_of_workers(tiny_store: Path, algorithm: str) -> None:
    config = TrainConfig.of(
        data_path=tiny_store,
        model="small_cnn",
        pretrained=False,
        image_size=32,
        cohort_size=3,
        central_batch_size=6,
        local_batch_size=4,
        algorithm_name=algorithm,
        central_optimizer="sgd",
        central_lr_num_warmup_iterations=0,
        scaffold_option=1,
        device="cpu",
    )
    setup = make_setup(config, noise_seed=0)
    start = initial_state(setup)
    ends = []
    for models in (
        [host_model(copy.deepcopy(setup.worker.module))],
        [device_model(copy.deepcopy(setup.worker.module))],
        [device_model(copy.deepcopy(setup.worker.module)) for _ in range(3)],
    ):
        backend, state = backend_of([Worker(setup.worker, model) for model in models]), start
        for _ in range(2):
            state, _ = run_round(state, setup.sampler.sample(state.round), setup=setup, backend=backend)
        ends.append(state.parameters - start.parameters)
    assert_near(ends[1], ends[0], ROUNDING)
    assert torch.equal(ends[1], ends[2])


def test_evaluation_follows_the_hosts(tiny_store: Path) -> None:
    config = TrainConfig.of(
        data_path=tiny_store, model="small_cnn", pretrained=False, image_size=32, cohort_size=1, device="cpu"
    )
    setup = make_setup(config, noise_seed=0)
    encoded = [setup.worker.store.partitions["val"].encoded(k) for k in range(9)]
    parameters = initial_state(setup).parameters
    logits = [
        score_images(Worker(setup.worker, model), parameters, encoded)
        for model in (host_model(copy.deepcopy(setup.worker.module)), device_model(copy.deepcopy(setup.worker.module)))
    ]
    assert np.abs(logits[0] - logits[1]).max() < 0.01 * np.abs(logits[0]).max()


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch knows no GPUs")
@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_a_step_stays_on_the_gpu(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tensors that say they are on a GPU and hold no numbers: mixing them with the CPU's, or asking for a value, raises.
    # Only the backward pass is left out, whose engine asks the driver.
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, inputs, **options: [torch.zeros_like(t) for t in inputs])
    device = torch.device("cuda")
    with FakeTensorMode(), device:
        module = with_norm(small_cnn.SmallCNN(4), norm)
        monkeypatch.setattr(module, "to", lambda device: module)
        model = flatten(module, device, cuda_graphs=False)
        inputs = empty_inputs(4, torch.empty(9, 4))
        step_function(model, inputs, 32, descend=True)()
        assert (inputs.loss.device.type, model.parameters.device.type) == ("cuda", "cuda")
        with pytest.raises(DataDependentOutputException):
            float(inputs.loss)
