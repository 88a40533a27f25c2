"""The room that client states need: said, and refused where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.setup import make_setup
from fedflair.training.run_states import check_room, describe_states, state_size
from fedflair.training.train import train
from tests.small_runs import small_config


def test_flairs_size_is_the_published_one() -> None:
    # ResNet-18 has 11.2 million parameters; after 5,000 rounds of 200 every one of the 41,131 users was met.
    config = TrainConfig.of(algorithm_name="scaffold", scaffold_states="memory")
    size = state_size(config, 41_131, 11_185_233)
    assert (size.num_clients, size.bytes_each) == (41_131, 44_740_932)
    assert size.bytes / 1e12 == pytest.approx(1.84, abs=0.005)
    half = state_size(TrainConfig.of(algorithm_name="scaffold", scaffold_dtype="bfloat16"), 41_131, 11_185_233)
    assert half.bytes_each * 2 == size.bytes_each
    # On disk, states that the last two checkpoints still need: 20 rounds of 200 each.
    assert half.num_superseded == 8000
    few = state_size(TrainConfig.of(algorithm_name="scaffold", scaffold_max_clients=1000), 41_131, 11_185_233)
    assert (few.num_clients, few.num_superseded) == (1000, 2000)


def test_a_short_run_meets_few_clients() -> None:
    # 1,000 * (1 - 0.9^2) = 190 in expectation.
    config = TrainConfig.of(algorithm_name="scaffold", cohort_size=100, central_num_iterations=2)
    assert state_size(config, 1000, 10).num_clients == 190


def test_what_does_not_fit_is_refused_before_anything_is_written(tiny_store: Path, tmp_path: Path) -> None:
    options = {"algorithm_name": "scaffold", "model": "small_cnn"}
    setup = make_setup(small_config(tiny_store, **options), noise_seed=0)
    assert describe_states(setup) == ("client states: about 6 of 6 clients, 1.56 MB each in float32, 28.1 MB on disk")
    check_room(setup, tmp_path / "run")
    object.__setattr__(setup.worker, "clients", _a_million_million(setup.worker.clients.client_ids))
    object.__setattr__(setup.config.algorithm, "central_num_iterations", 10**9)
    with pytest.raises(ConfigError, match=r"scaffold_states: about .* of client states and only .* are free at"):
        check_room(setup, tmp_path / "run")
    object.__setattr__(setup.config.algorithm, "scaffold_states", "memory")
    with pytest.raises(ConfigError, match=r"of memory are in this machine; lower scaffold_max_clients"):
        check_room(setup, tmp_path / "run")


def test_the_room_is_that_of_the_runs_own_disk(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=0 if path.is_relative_to(tmp_path) else 10**15)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    config = small_config(tiny_store, algorithm_name="scaffold", model="small_cnn", run=tmp_path / "runs" / "one")
    with pytest.raises(ConfigError, match=rf"only 0 bytes are free at {tmp_path};"):
        train(config)
    assert not (tmp_path / "runs").exists()


class _a_million_million:
    """As many clients as no disk holds; a range, since nothing but their number is asked for."""

    def __init__(self, client_ids: list[str]) -> None:
        self.client_ids = range(10**12)
