"""What compression leaves of an update, and how many bytes it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.train_config import TrainConfig
from fedflair.federated.client import ClientUpdate
from fedflair.federated.compression import BLOCK, COMPRESSIONS
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.server import Broadcast
from fedflair.federated.setup import make_setup
from fedflair.sampling import stream
from fedflair.training.client_group import bound_update
from tests.small_runs import small_config


def compressed(values: list[float] | torch.Tensor, name: str, seed: int = 0, **options: float) -> torch.Tensor:
    update = torch.as_tensor(values, dtype=torch.float32).clone()
    COMPRESSIONS[name].apply(update, CohortOptions(**options), stream(seed, "compression"))  # type: ignore[arg-type]
    return update


def test_top_k_by_hand() -> None:
    assert compressed([1.0, -5.0, 0.5, 3.0, -2.0], "top_k", top_k_fraction=0.4).tolist() == [0.0, -5.0, 0.0, 3.0, 0.0]
    # At least one entry is sent, and a share is rounded up.
    assert compressed([1.0, -5.0, 0.5], "top_k", top_k_fraction=0.01).tolist() == [0.0, -5.0, 0.0]
    assert compressed([1.0, -5.0, 0.5], "top_k", top_k_fraction=0.34).tolist() == [1.0, -5.0, 0.0]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40), st.integers(0, 5))
def test_quantised_values_are_levels_next_to_the_true_ones(values: list[float], seed: int) -> None:
    exact = torch.tensor(values)
    scale = max(float(exact.abs().max()) / 127, torch.finfo(torch.float32).tiny)
    rounded = compressed(exact, "quantize_8bit", seed)
    assert float((rounded - exact).abs().max()) <= scale * 1.001
    levels = rounded / scale
    assert float((levels - levels.round()).abs().max()) < 1e-3
    assert float(levels.abs().max()) < 127.5


def test_quantisation_is_right_on_average_and_in_every_block() -> None:
    exact = torch.cat([torch.full((BLOCK,), 0.003), torch.full((BLOCK,), 30.3), torch.tensor([7.0, 1.23])])
    exact[0], exact[BLOCK] = 1.27, 127.0
    mean = torch.stack([compressed(exact, "quantize_8bit", seed) for seed in range(60)]).mean(0)
    # One level of the first block is 0.01 and of the second 1; 60 draws of each of 2,047 equal entries.
    assert float(mean[1:BLOCK].mean()) == pytest.approx(0.003, abs=5e-5)
    assert float(mean[BLOCK + 1 : 2 * BLOCK].mean()) == pytest.approx(30.3, abs=5e-3)
    assert float(mean[-1]) == pytest.approx(1.23, abs=0.03)
    assert (float(mean[0]), float(mean[BLOCK])) == (pytest.approx(1.27), pytest.approx(127.0))


def test_nothing_becomes_something() -> None:
    assert not compressed(torch.zeros(5), "quantize_8bit").any()
    assert compressed([1.0, 2.0], "none").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_broken_update_stays_broken(name: str) -> None:
    assert not torch.isfinite(compressed([1.0, np.nan, 2.0], name)).all()
    assert not torch.isfinite(compressed([1.0, np.inf, 2.0], name)).all()


def test_bytes_by_hand() -> None:
    config = TrainConfig.of(top_k_fraction=0.01)
    assert COMPRESSIONS["none"].num_bytes(10_000, config.cohort) == 40_000
    # 100 values of 4 bytes with an index of 4 bytes each.
    assert COMPRESSIONS["top_k"].num_bytes(10_000, config.cohort) == 800
    # One byte an entry and the scales of five blocks of up to 2,048.
    assert COMPRESSIONS["quantize_8bit"].num_bytes(10_000, config.cohort) == 10_020


@pytest.mark.parametrize("name", ["top_k", "quantize_8bit"])
def test_the_bound_of_privacy_holds_for_what_is_summed(tiny_store: Path, name: str) -> None:
    """Rounding to levels may lengthen an update; the central clipping comes after it."""
    mechanism = {"central_privacy_mechanism": "norm_clipping_only", "central_privacy_clipping_bound": 0.1}
    setup = make_setup(small_config(tiny_store, model="small_cnn", compression=name, **mechanism), noise_seed=0)
    for seed in range(5):
        delta = torch.randn(5000, generator=torch.Generator().manual_seed(seed)) * 0.1 / 5000**0.5
        whole = delta.clone()
        update = ClientUpdate(delta, 1.0, 1, LocalMetrics())
        bound_update(setup.worker, update, Broadcast(seed, delta, {}, 0.1), "client")
        assert not torch.equal(update.delta, whole)
        assert float(update.delta.double().norm()) <= 0.1 * (1 + 1e-6)


def test_rounds_and_clients_are_rounded_apart(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, model="small_cnn", compression="quantize_8bit"), noise_seed=0)
    rounded = []
    for round_, client in ((0, "a"), (0, "a"), (1, "a"), (0, "b")):
        update = ClientUpdate(torch.linspace(-1, 1, 500), 1.0, 1, LocalMetrics())
        bound_update(setup.worker, update, Broadcast(round_, update.delta, {}, np.inf), client)
        rounded.append(update.delta)
    assert torch.equal(rounded[0], rounded[1])
    assert not torch.equal(rounded[0], rounded[2])
    assert not torch.equal(rounded[0], rounded[3])
