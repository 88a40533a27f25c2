"""Each fast path against its slow twin: layers, whole networks, steps and rounds."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedflair.data.clients.federated import natural_users
from fedflair.data.store.labels import label_space
from fedflair.data.store.packed import open_store
from fedflair.engine.cpu.choice import DIRECT_LINEAR, arithmetic
from fedflair.engine.cpu.fast_layers import DirectConv2d, FusedNorm
from fedflair.engine.cpu.kernels import computing_with, current, library
from fedflair.engine.cpu.linear import DirectLinear
from fedflair.engine.cpu.pooled_norm import PooledNorm
from fedflair.engine.flat_model import FlatModel, flatten
from fedflair.federated.client import LocalTraining, sgd_step, train_locally
from fedflair.models import multi_label_cnn, small_cnn
from fedflair.models.normalization import FrozenBatchNorm2d
from fedflair.sampling import stream

CPU = torch.device("cpu")
OPTIONS = LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4, max_grad_norm=1.0, image_size=32)

IN_BF16 = pytest.mark.skipif(arithmetic(current(), "bf16") != "bf16", reason="this processor has no bfloat16s")

pytestmark = [
    pytest.mark.skipif(library() is None, reason="this machine has no C compiler"),
    pytest.mark.usefixtures("one_operator_thread"),
]


def norm_layer(kind: str, channels: int) -> nn.GroupNorm | FrozenBatchNorm2d:
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(8, channels) if kind == "group" else FrozenBatchNorm2d(channels, 1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels, generator=generator) + 0.5)
        norm.bias.copy_(torch.randn(channels, generator=generator))
        if isinstance(norm, FrozenBatchNorm2d):
            norm.running_mean.copy_(torch.randn(channels, generator=generator))
            norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.1)
    return norm


@pytest.mark.parametrize("kind", ["group", "frozen"])
@pytest.mark.parametrize("relu", ["", "relu", "relu6"])
@pytest.mark.parametrize("with_skip", [False, True])
def test_fused_normalisation_equals_the_three_layers(kind: str, relu: str, with_skip: bool) -> None:
    # 37 x 11 pixels: more than one chunk of the kernels' sums, and no round number. A mean of 30 must not cancel.
    generator = torch.Generator().manual_seed(1)
    x, skip, dy = (torch.randn(3, 48, 37, 11, generator=generator, dtype=torch.float64) for _ in range(3))
    x = (x + 30).contiguous(memory_format=torch.channels_last).requires_grad_()
    skip = skip.requires_grad_()
    norm = norm_layer(kind, 48)
    exact = copy.deepcopy(norm).double()
    # Scaled up, so that some are above 6.
    with torch.no_grad():
        exact.weight.mul_(4)
        norm.weight.mul_(4)
    y = exact(x) + skip if with_skip else exact(x)
    y = functional.relu6(y) if relu == "relu6" else y.relu() if relu else y
    y.backward(dy)
    fast_x, fast_skip = x.detach().float().requires_grad_(), skip.detach().float().requires_grad_()
    fast_y = FusedNorm(norm, relu=relu != "", six=relu == "relu6")(fast_x, fast_skip if with_skip else None)
    fast_y.backward(dy.float())
    pairs = [(fast_y, y), (fast_x.grad, x.grad), (norm.weight.grad, exact.weight.grad)]
    pairs += [(norm.bias.grad, exact.bias.grad)] + ([(fast_skip.grad, skip.grad)] if with_skip else [])
    for ours, expected in pairs:
        assert ours is not None and expected is not None
        # Where the output is 0 but for rounding, the ReLU may go either way: compare all but a few elements.
        wrong = (ours.double() - expected).abs() > 1e-4 * expected.abs().max()
        assert float(wrong.double().mean()) < 1e-3


def test_bfloat16_is_the_rounded_float32() -> None:
    norm, x = norm_layer("group", 32), torch.randn(2, 32, 9, 9).contiguous(memory_format=torch.channels_last)
    expected = functional.relu(norm(x.bfloat16().float())).bfloat16()
    fast = FusedNorm(norm, relu=True)(x.bfloat16())
    assert fast.dtype == torch.bfloat16
    torch.testing.assert_close(fast, expected, rtol=2**-7, atol=1e-5)
    infinite = torch.full((1, 32, 2, 2), float("nan"), dtype=torch.bfloat16)
    assert FusedNorm(norm, relu=True)(infinite).isnan().all()
    assert FusedNorm(norm, relu=True, six=True)(infinite).isnan().all()


def step(model: FlatModel, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    model.clear_gradients()
    functional.binary_cross_entropy_with_logits(model.logits(inputs), targets).backward()
    return model.gradients.clone()


@pytest.mark.parametrize(
    ("name", "pretrained", "side"),
    [("resnet18", False, 64), ("resnet18", True, 64), ("densenet121", True, 64), ("mobilenet_v2", False, 128)],
)
def test_the_fast_form_has_the_gradient_of_the_plain_module(name: str, pretrained: bool, side: int) -> None:
    # Without dropout, which draws anew each time.
    module = multi_label_cnn.build(name, 5, pretrained=pretrained, weights=None, seed=0).eval()
    model = flatten(module, CPU)
    assert model.fast is not None
    plain = FlatModel(module, model.parameters, model.gradients)
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(2, 3, side, side, generator=generator)
    targets = (torch.rand(2, 5, generator=generator) < 0.5).float()
    expected, fast = step(plain, inputs, targets), step(model, inputs, targets)
    again = step(model, inputs, targets)
    assert torch.equal(fast, again)
    # A ReLU near 0 goes either way on the last bit, which moves the whole gradient: the plain module itself is up to
    # 9e-3 from float64 here. A path that is wrong is off by about 1.
    assert float((fast - expected).norm() / expected.norm()) < 3e-2


def test_mobilenet_keeps_no_relu_and_no_convolution() -> None:
    model = flatten(multi_label_cnn.build("mobilenet_v2", 5, pretrained=False, weights=None, seed=0), CPU)
    assert model.fast is not None
    layers = list(model.fast.network.modules())
    assert sum(isinstance(layer, FusedNorm) and layer.six for layer in layers) == 35
    assert sum(isinstance(layer, DirectConv2d) for layer in layers) == 52
    # Two norms are left, of 24 channels, which are no multiple of 16.
    assert not [node for node in model.fast.network.graph.nodes if "relu" in str(node.name)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_against_float64(precision: str, bias: bool) -> None:
    layers = [nn.Linear(96, 48, bias=bias), nn.SiLU(inplace=True), nn.Unflatten(1, (7, 1)), nn.Conv2d(7, 16, 1)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 16, 5))
    model = flatten(module, CPU, precision)  # type: ignore[arg-type]
    assert model.fast is not None
    if current() in DIRECT_LINEAR:
        assert sum(isinstance(layer, DirectLinear) for layer in model.fast.network.modules()) == 1
    inputs, targets = torch.randn(3, 7, 96), torch.rand(3, 5)
    exact = copy.deepcopy(module).double()
    for parameter in exact.parameters():
        parameter.grad = None
    functional.binary_cross_entropy_with_logits(exact(inputs.double()), targets.double()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in exact.parameters() if parameter.grad is not None])
    for _ in range(2):
        found = step(model, inputs, targets)
        assert float((found - expected).norm() / expected.norm()) < (1e-5 if precision == "fp32" else 2e-2)


def test_what_a_convolution_gives_may_be_written_to() -> None:
    # As torchvision's EfficientNet does in its smallest layers.
    module = nn.Sequential(nn.Conv2d(32, 64, 1), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(64, 5))
    inputs, targets = torch.randn(2, 32, 1, 1), torch.rand(2, 5)
    for precision in ("fp32", "bf16"):
        model = flatten(module, CPU, precision)  # type: ignore[arg-type]
        assert model.fast is not None
        plain = FlatModel(module, model.parameters, model.gradients)
        torch.testing.assert_close(step(model, inputs, targets), step(plain, inputs, targets), rtol=0.05, atol=1e-3)


def test_resnet18_is_fused_whole() -> None:
    model = flatten(multi_label_cnn.build("resnet18", 5, pretrained=False, weights=None, seed=0), CPU)
    assert model.fast is not None
    layers = list(model.fast.network.modules())
    norms = [layer for layer in layers if isinstance(layer, FusedNorm | PooledNorm)]
    assert len(norms) == sum(isinstance(layer, DirectConv2d) for layer in layers) == 20
    # The first ends in pooling, all but the three on the shortcuts in a ReLU; no other ReLU or addition is left.
    assert sum(isinstance(norm, PooledNorm) for norm in norms) == 1
    assert sum(isinstance(norm, FusedNorm) and norm.relu for norm in norms) == 16
    code = model.fast.network.code
    assert code.count("iadd") == code.count("relu") == code.count("maxpool") == 0
    # Each follows a convolution and leaves its input's gradient in that one's output.
    assert all(norm.takes_over for norm in norms)
    # 40 of GroupNorm, 2 of the head.
    assert len(model.fast.summed) == 42


class TwoReaders(nn.Module):
    """A convolution's output is normalised, and read once more afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        together: torch.Tensor = self.norm(features).relu() * features
        return together.mean((2, 3))


def test_what_is_read_twice_is_not_taken_over() -> None:
    module = TwoReaders()
    model = flatten(module, CPU)
    assert model.fast is not None
    (norm,) = (layer for layer in model.fast.network.modules() if isinstance(layer, FusedNorm))
    assert not norm.takes_over
    plain = FlatModel(module, model.parameters, model.gradients)
    inputs, targets = torch.randn(2, 3, 8, 8), torch.rand(2, 16)
    torch.testing.assert_close(step(model, inputs, targets), step(plain, inputs, targets), rtol=1e-4, atol=1e-6)


def test_a_network_that_cannot_be_traced_runs_as_it_is() -> None:
    class Twisted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = self.convolution(images)
            if features.sum() > 0:
                features = -features
            return self.head(features.mean((2, 3)))

    model = flatten(Twisted(), CPU)
    assert model.fast is None
    assert model.logits(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_a_network_that_trains_otherwise_than_it_evaluates_runs_as_it_is() -> None:
    class TwoFaced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 16, 8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = self.head(images).flatten(1)
            return logits * 2 if self.training else logits

    assert flatten(TwoFaced(), CPU).fast is None


def trained(tiny_store: Path, module: nn.Module, precision: str, fast: bool, num_rounds: int) -> torch.Tensor:
    store = open_store(tiny_store)
    users = natural_users(store, "train", label_space(store, fine=False))
    model = flatten(module, CPU, precision)  # type: ignore[arg-type]
    assert model.fast is not None
    if not fast:
        model = FlatModel(model.module, model.parameters, model.gradients, model.precision)
    server = model.parameters.clone()
    for round_ in range(num_rounds):
        deltas = []
        for client_id in users.client_ids[:4]:
            generator = stream(0, "client", round_, client_id)
            deltas.append(train_locally(model, server, users.load(client_id, None, generator), OPTIONS, generator)[0])
        server = server + torch.stack(deltas).mean(0)
    return server


def test_five_rounds_end_where_the_plain_loop_ends(tiny_store: Path) -> None:
    start = flatten(small_cnn.build("", 4, pretrained=False, weights=None, seed=1), CPU).parameters
    ends = [
        trained(tiny_store, small_cnn.build("", 4, pretrained=False, weights=None, seed=1), "fp32", fast, 5)
        for fast in (True, False)
    ]
    assert float((ends[0] - ends[1]).norm() / ends[1].norm()) < 1e-4
    assert float((ends[0] - ends[1]).norm() / (ends[1] - start).norm()) < 1e-2


@IN_BF16
def test_bf16_moves_as_autocast_of_the_plain_module_does(tiny_store: Path) -> None:
    start = flatten(small_cnn.build("", 4, pretrained=False, weights=None, seed=1), CPU).parameters
    exact, rounded, plain = (
        trained(tiny_store, small_cnn.build("", 4, pretrained=False, weights=None, seed=1), precision, fast, 1) - start
        for precision, fast in (("fp32", True), ("bf16", True), ("bf16", False))
    )
    error, usual = float((rounded - exact).norm()), float((plain - exact).norm())
    assert 0 < error < 2 * usual
    assert error < 0.2 * float(exact.norm())


@IN_BF16
def test_the_rounded_parameters_follow_every_step() -> None:
    model = flatten(small_cnn.build("", 4, pretrained=False, weights=None, seed=1), CPU, "bf16")
    assert model.fast is not None and model.fast.rounded is not None
    inputs, targets = torch.randn(2, 3, 32, 32), torch.ones(2, 4)
    for velocity in (None, torch.zeros_like(model.parameters)):
        before = model.parameters.clone()
        sgd_step(model, inputs, targets, OPTIONS, None, velocity)
        assert not torch.equal(model.parameters, before)
        assert torch.equal(model.fast.rounded, model.parameters.bfloat16())
    model.load(torch.linspace(-3, 3, len(model.parameters)))
    assert torch.equal(model.fast.rounded, torch.linspace(-3, 3, len(model.parameters)).bfloat16())


@IN_BF16
def test_bf16_is_float32_where_its_products_would_be_emulated() -> None:
    inputs, targets = torch.randn(2, 3, 32, 32), torch.ones(2, 4)
    with computing_with("avx512f"):
        gradients = [
            step(
                flatten(small_cnn.build("", 4, pretrained=False, weights=None, seed=1), CPU, precision), inputs, targets
            )
            for precision in ("fp32", "bf16")
        ]
        assert torch.equal(*gradients)


class Tied(nn.Module):
    """A weight of two layers, and one that the network reads by itself as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.GroupNorm(4, 16)
        self.inner = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.second(self.first(x))).mean((2, 3))
        return self.head(nn.functional.linear(self.inner(x), self.inner.weight))


def test_what_is_shared_is_trained_once_with_all_of_its_gradient() -> None:
    torch.manual_seed(0)
    module = Tied()
    exact = copy.deepcopy(module).double()
    images = torch.randn(3, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    exact(images.double()).square().sum().backward()
    model = flatten(module, torch.device("cpu"))
    assert model.parameters.numel() == 16 * 16 * 9 + 2 * 16 + 16 * 17 + 17 * 3
    model.clear_gradients()
    model.logits(images).square().sum().backward()
    for (name, parameter), twin in zip(model.module.named_parameters(), exact.parameters()):
        assert parameter.grad is not None and twin.grad is not None
        torch.testing.assert_close(parameter.grad.double(), twin.grad, rtol=1e-4, atol=1e-4, msg=name)
