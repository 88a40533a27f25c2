"""Which kernels compute a layer: the tables, and every way against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from fedflair.engine.cpu import choice, fast_layers
from fedflair.engine.cpu.choice import KINDS, Direction, Kind, Precision, Way, arithmetic, own_kind, way_of
from fedflair.engine.cpu.fast_layers import DirectConv2d
from fedflair.engine.cpu.kernels import Chosen, chosen, computing_with, continued, current, library, scored_with
from fedflair.engine.cpu.winograd_convolution import Scratch
from fedflair.engine.cpu.words import describe
from fedflair.errors import ConfigError
from fedflair.models import multi_label_cnn


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """What this machine chooses by itself."""
    monkeypatch.delenv("FEDFLAIR_KERNELS", raising=False)
    kind = chosen().kind
    if kind == "none":
        pytest.skip("this machine has no kernels")
    return kind


def can(kind: Kind) -> bool:
    """Whether this machine has that kind of kernels."""
    try:
        with computing_with(kind):
            return True
    except ConfigError:
        return False


HERE = [kind for kind in KINDS if can(kind)]


def ways(kind: Kind, precision: Precision, *, tiles: int, rows: int, out_channels: int) -> tuple[Way, ...]:
    """Forward, towards the inputs, towards the weights."""
    directions: tuple[Direction, ...] = ("forward", "input", "weight")
    return tuple(
        way_of(kind, precision, direction, tiles=tiles, rows=rows, out_channels=out_channels)
        for direction in directions
    )


# Rows as in the table of measurements on AMX: of each layer the fastest in each direction.
@pytest.mark.parametrize(
    ("tiles", "rows", "out_channels", "expected"),
    [
        (784, 56 * 56, 64, ("library", "library", "library")),
        (196, 28 * 28, 128, ("library", "library", "library")),
        (49, 14 * 14, 256, ("library", "library", "product")),
        (16, 7 * 7, 512, ("product", "product", "product")),
        (0, 7 * 7, 512, ("product", "product", "product")),
        (0, 112 * 112, 64, ("library", "library", "library")),
        (16 * 16, 16 * 7 * 7, 512, ("library", "library", "library")),
    ],
)
def test_the_table_of_amx_in_bf16(tiles: int, rows: int, out_channels: int, expected: tuple[Way, ...]) -> None:
    assert ways("amx_bf16", "bf16", tiles=tiles, rows=rows, out_channels=out_channels) == expected


@pytest.mark.parametrize("kind", ["amx_bf16", "avx512_bf16", "avx512f"])
def test_the_table_of_avx512_in_fp32(kind: Kind) -> None:
    assert ways(kind, "fp32", tiles=16, rows=49, out_channels=512) == ("winograd",) * 3
    assert ways(kind, "fp32", tiles=15, rows=49, out_channels=512) == ("library", "library", "winograd")
    assert ways(kind, "fp32", tiles=0, rows=64, out_channels=64) == ("library", "library", "product")
    assert ways(kind, "fp32", tiles=0, rows=65, out_channels=64) == ("library", "library", "library")


def test_the_table_of_avx512_in_bf16() -> None:
    assert ways("avx512_bf16", "bf16", tiles=16, rows=49, out_channels=512) == ("winograd",) * 3
    assert ways("avx512_bf16", "bf16", tiles=15, rows=49, out_channels=512) == ("product", "product", "winograd")
    assert ways("avx512_bf16", "bf16", tiles=0, rows=63, out_channels=64) == ("product", "product", "product")
    assert ways("avx512_bf16", "bf16", tiles=0, rows=64, out_channels=64) == ("library", "library", "product")
    assert ways("avx512_bf16", "bf16", tiles=0, rows=257, out_channels=64) == ("library", "library", "library")


def test_the_table_of_avx2() -> None:
    assert ways("avx2", "fp32", tiles=16, rows=49, out_channels=512) == ("winograd",) * 3
    assert ways("avx2", "fp32", tiles=0, rows=256, out_channels=512) == ("library", "library", "product")
    assert ways("avx2", "fp32", tiles=0, rows=257, out_channels=512) == ("library", "library", "library")


@pytest.mark.parametrize("kind", ["neon", "none"])
@pytest.mark.parametrize("rows", [1, 49, 12544])
def test_what_nobody_has_measured_is_the_librarys(kind: Kind, rows: int) -> None:
    for precision in ("fp32", "bf16"):
        assert ways(kind, precision, tiles=rows, rows=rows, out_channels=512) == ("library",) * 3  # type: ignore[arg-type]


def test_bf16_is_computed_in_float32_where_its_products_would_be_emulated() -> None:
    in_bf16 = {kind: arithmetic(kind, "bf16") for kind in KINDS}
    assert in_bf16 == {
        "amx_bf16": "bf16", "avx512_bf16": "bf16", "avx512f": "fp32", "avx2": "fp32", "neon": "fp32", "none": "bf16",
    }  # fmt: skip
    assert {arithmetic(kind, "fp32") for kind in KINDS} == {"fp32"}


@pytest.mark.parametrize("missing", ["amx_tile", "avx512_bf16", "avx512vl", "fma", "avx2"])
def test_the_kind_of_a_processor_follows_from_its_features(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    features = frozenset().union(*(choice.FEATURES[kind] for kind in KINDS if kind != "neon"))
    expected = {"amx_tile": "avx512_bf16", "avx512_bf16": "avx512f", "avx512vl": "avx2", "fma": "none", "avx2": "none"}
    monkeypatch.setattr(choice, "own_features", lambda: features)
    assert own_kind() == "amx_bf16"
    monkeypatch.setattr(choice, "own_features", lambda: features - {missing})
    assert own_kind() == expected[missing]
    monkeypatch.setattr(choice, "own_features", lambda: frozenset({"fp", "asimd"}))
    assert own_kind() == "neon"


LAYERS: dict[str, tuple[nn.Conv2d, int | tuple[int, int], int]] = {
    "3x3": (nn.Conv2d(64, 32, 3, padding=1), 9, 2),
    "3x3, one pixel": (nn.Conv2d(32, 64, 3, padding=1), 1, 1),
    "3x3/2": (nn.Conv2d(32, 64, 3, 2, 1, bias=False), 8, 1),
    "3x3/2, many rows": (nn.Conv2d(16, 16, 3, 2, 1, bias=False), 40, 3),
    "1x1/2": (nn.Conv2d(32, 96, 1, 2, bias=False), 7, 2),
    "1x1": (nn.Conv2d(16, 24, 1, bias=False), 5, 2),
    "by groups": (nn.Conv2d(16, 32, 3, 1, 2, 2, groups=4), 8, 2),
    "3x3/2 by channels": (nn.Conv2d(32, 32, 3, 2, 1, groups=32, bias=False), 9, 2),
    "5x5/2 by channels": (nn.Conv2d(16, 16, 5, (2, 3), (2, 0), groups=16), 8, 2),
    "5x5 by channels": (nn.Conv2d(80, 80, 5, padding=2, groups=80, bias=False), 6, 2),
    "3x1/2 by channels": (nn.Conv2d(32, 32, (3, 1), 2, (2, 3), groups=32, bias=False), (3, 2), 1),
    "7x7/2": (nn.Conv2d(3, 64, 7, 2, 3, bias=False), 30, 1),
}


@pytest.mark.usefixtures("one_operator_thread")
@pytest.mark.parametrize("layer", list(LAYERS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", HERE)
def test_every_way_against_float64(kind: Kind, precision: Precision, layer: str) -> None:
    convolution, side, images = LAYERS[layer]
    generator = torch.Generator().manual_seed(3)
    dtype = torch.bfloat16 if arithmetic(kind, precision) == "bf16" else torch.float32
    convolution = convolution.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).to(dtype).float() / 8)
    convolution.weight.grad = torch.full_like(convolution.weight, torch.nan)
    sides = side if isinstance(side, tuple) else (side, side)
    x = torch.randn(images, convolution.in_channels, *sides, generator=generator).to(dtype)
    leaf, exact_x = x.clone().requires_grad_(), x.double().requires_grad_()
    exact_weight = convolution.weight.detach().double().requires_grad_()
    bias = None if convolution.bias is None else convolution.bias.detach().double()
    shape = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    expected = conv2d(exact_x, exact_weight, bias, *shape)  # type: ignore[arg-type]
    dy = torch.randn(expected.shape, generator=generator).to(dtype)
    dx, dw = torch.autograd.grad(expected, (exact_x, exact_weight), dy.double())
    with computing_with(kind):
        rounded = convolution.weight.detach().to(dtype) if dtype == torch.bfloat16 else None
        y = DirectConv2d(convolution, rounded, Scratch())(leaf)
        y.backward(dy)
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    for found, exact in ((y, expected), (leaf.grad, dx), (convolution.weight.grad, dw)):
        assert found is not None
        error = (found.detach().double() - exact.detach()).norm() / exact.detach().norm()
        assert float(error) < tolerance


@pytest.mark.parametrize("kind", HERE)
def test_a_block_computes_with_what_it_says(kind: Kind, own: Kind) -> None:
    assert current() == own
    with computing_with(kind):
        assert current() == kind
        assert (library() is None) == (kind == "none")
        with computing_with("none"):
            assert library() is None
        assert current() == kind
    assert current() == own


@pytest.mark.parametrize("kind", HERE)
def test_a_kind_can_be_forced(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFLAIR_KERNELS", kind)
    assert chosen() == Chosen(kind)
    assert current() == kind


def test_what_cannot_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFLAIR_KERNELS", "0")
    assert chosen() == Chosen("none")
    monkeypatch.setenv("FEDFLAIR_KERNELS", "fast")
    with pytest.raises(ConfigError, match=r"^FEDFLAIR_KERNELS: 'fast' is no kind of kernels; choose 0 or one of amx_b"):
        chosen()
    foreign = "neon" if own_kind() != "neon" else "avx2"
    monkeypatch.setenv("FEDFLAIR_KERNELS", foreign)
    with pytest.raises(ConfigError, match=f"kernels for {foreign} are asked for, and there is no .* in this processor"):
        chosen()


def test_what_is_lacking_without_a_compiler(own: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert chosen() == Chosen("none", "no C compiler")
    with pytest.raises(
        ConfigError, match=f"the run computes with {own} kernels, and there is no C compiler; resume it"
    ):
        continued(own)
    kind, note = scored_with(own)
    assert (kind, note) == ("none", f"none, not {own} as in training: equal up to rounding only")
    monkeypatch.setenv("FEDFLAIR_KERNELS", own)
    with pytest.raises(ConfigError, match=f"kernels for {own} are asked for, and there is no C compiler"):
        chosen()


def test_a_run_that_goes_on(own: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert continued(own) == (own, "")
    kind, note = continued("none")
    assert (kind, note) == ("none", f"computes with none kernels, as it began; a new run would take {own} here")
    assert scored_with("none") == ("none", "")
    monkeypatch.setenv("FEDFLAIR_KERNELS", own)
    kind, note = continued("none")
    assert kind == own
    assert note == f"begun with none kernels, goes on with {own} (FEDFLAIR_KERNELS): equal up to rounding only"
    assert continued(own) == (own, "")


@pytest.mark.parametrize("kind", HERE)
def test_a_run_says_what_it_computes_with(kind: Kind) -> None:
    module = multi_label_cnn.build("resnet18", 5, pretrained=False, weights=None, seed=0)
    attention = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    instructions = "AVX2" if kind == "avx2" else "AVX-512"
    own = "; norms: own kernels"
    expected = {
        "amx_bf16": f"convolutions: products and library (AMX bf16){own}",
        "avx512_bf16": f"convolutions: Winograd (AVX-512 bf16), products and library{own}",
        "neon": f"convolutions: library{own}; in float32, since this processor only emulates products of bfloat16s",
        "none": "convolutions and norms: torch's (no kernels are to be used)",
    }
    fp32 = f"convolutions: Winograd ({instructions}), products and library{own}"
    expected["avx512f"] = expected["avx2"] = (
        f"{fp32}; in float32, since this processor only emulates products of bfloat16s"
    )
    with computing_with(kind):
        assert describe(module, "bf16") == expected[kind]
        if kind not in ("none", "neon"):
            assert describe(module, "fp32") == fp32
            assert describe(attention, "fp32") == "convolutions: library; norms: as torch has them"


def test_a_run_says_what_is_missing(own: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    words = "convolutions and norms: torch's (no C compiler: {} times slower; install gcc)"
    assert describe(nn.Linear(2, 2), "fp32") == words.format(1.6)
    assert describe(nn.Linear(2, 2), "bf16") == words.format(2.4)


def test_the_table_is_asked_by_images_times_output_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def recorded(direction: Direction, *arguments: Any) -> Way:
        asked.append((direction, arguments[-1]))
        return "library"

    monkeypatch.setattr(fast_layers, "_way", recorded)
    convolution = nn.Conv2d(48, 16, 3, stride=2, padding=1)
    convolution.weight.grad = torch.zeros_like(convolution.weight)
    x = torch.randn(2, 48, 9, 13, requires_grad=True)
    DirectConv2d(convolution, None, Scratch())(x).sum().backward()
    # 2 images of 5 x 7 pixels
    assert asked == [("forward", 70), ("input", 70), ("weight", 70)]
