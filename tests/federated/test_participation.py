"""Who answers, how long it takes, and what is sent: by hand, and in a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.participation import Participation, num_asked, participate
from fedflair.federated.setup import make_setup
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.sampling import stream
from fedflair.training.train import train
from tests.small_runs import small_config


def of_everybody(store: Path, round_: int = 0, vectors: int = 1, **options: Any) -> Participation:
    """What becomes of all six clients (1, 2, 3, 5, 9, 4 images) with a model of 1,000 parameters."""
    setup = make_setup(small_config(store, model="small_cnn", **options), noise_seed=0)
    return participate(
        list(setup.worker.clients.client_ids),
        round_,
        config=setup.config,
        clients=setup.worker.clients,
        num_parameters=1000,
        vectors_up=vectors,
        vectors_down=vectors,
    )


def test_time_and_bytes_by_hand(tiny_store: Path) -> None:
    # The largest client: 9 images, 2 passes, 0.1 s each, and 8,000 bytes at 1e6 a second.
    plain = of_everybody(tiny_store)
    assert plain.seconds == pytest.approx(9 * 2 * 0.1 + 8000 / 1e6)
    assert (plain.bytes_up, plain.bytes_down) == (24_000, 24_000)
    assert (plain.num_dropped, plain.num_late, len(plain.cohort)) == (0, 0, 6)
    capped = of_everybody(tiny_store, max_num_user_images=4, client_seconds_per_image=1.0, client_bandwidth=1e3)
    assert capped.seconds == pytest.approx(4 * 2 * 1.0 + 8)
    steps = of_everybody(tiny_store, local_num_steps=3, local_batch_size=4)
    assert steps.seconds == pytest.approx(3 * 4 * 0.1 + 8000 / 1e6)
    # A client with fewer images than a batch takes no longer over a step than over what it has.
    setup = make_setup(small_config(tiny_store, model="small_cnn", local_num_steps=3, local_batch_size=4), noise_seed=0)
    for client, num_images in (("train-1@N01", 2), ("train-0@N00", 1), ("train-5@N05", 4), ("train-3@N03", 4)):
        alone = participate(
            [client],
            0,
            config=setup.config,
            clients=setup.worker.clients,
            num_parameters=1000,
            vectors_up=1,
            vectors_down=1,
        )
        assert alone.seconds == pytest.approx(3 * num_images * 0.1 + 8000 / 1e6)
    controls = of_everybody(tiny_store, vectors=2, compression="quantize_8bit")
    # The update in a byte an entry with one scale, the second vector whole.
    assert (controls.bytes_up, controls.bytes_down) == (6 * (1000 + 4 + 4000), 6 * 8000)


def test_the_fastest_of_those_that_are_asked_count(tiny_store: Path) -> None:
    # Without differences in speed the smallest clients are fastest: 1, 2, 3, 5, 9, 4 images.
    taken = of_everybody(tiny_store, cohort_size=3, over_selection=1.0)
    assert [name.split("@")[0] for name in taken.cohort] == ["train-0", "train-1", "train-2"]
    assert (taken.num_late, taken.num_dropped) == (3, 0)
    assert taken.seconds == pytest.approx(3 * 2 * 0.1 + 0.008)
    assert (taken.bytes_up, taken.bytes_down) == (12_000, 24_000)


def test_speed_is_a_clients_own(tiny_store: Path) -> None:
    slow = of_everybody(tiny_store, client_speed_std=1.0)
    again = of_everybody(tiny_store, round_=7, client_speed_std=1.0)
    speeds = {
        f"train-{k}@N0{k}": math.exp(stream(0, "speed", 0, f"train-{k}@N0{k}").standard_normal()) for k in range(6)
    }
    sizes = dict(zip(speeds, (1, 2, 3, 5, 9, 4)))
    expected = max((sizes[name] * 0.2 + 0.008) / speed for name, speed in speeds.items())
    assert slow.seconds == pytest.approx(expected)
    assert again.seconds == slow.seconds


def test_speeds_are_log_normal() -> None:
    logs = np.array([0.5 * stream(0, "speed", 0, f"client {k}").standard_normal() for k in range(4000)])
    assert abs(logs.mean()) < 0.03
    assert logs.std() == pytest.approx(0.5, abs=0.02)


def test_dropouts_have_their_rate_and_depend_on_round_and_client(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, model="small_cnn", dropout_rate=0.3), noise_seed=0)
    everybody = list(setup.worker.clients.client_ids)
    rounds = [
        participate(
            everybody,
            round_,
            config=setup.config,
            clients=setup.worker.clients,
            num_parameters=1,
            vectors_up=1,
            vectors_down=1,
        )
        for round_ in range(150)
    ]
    assert sum(r.num_dropped for r in rounds) / 900 == pytest.approx(0.3, abs=0.05)
    assert all(len(r.cohort) + r.num_dropped == 6 for r in rounds)
    assert len({tuple(r.cohort) for r in rounds}) > 20
    assert rounds[3].cohort == of_everybody(tiny_store, 3, dropout_rate=0.3).cohort


def test_over_selection_asks_for_more() -> None:
    assert num_asked(TrainConfig.of(cohort_size=200)) == 200
    assert num_asked(TrainConfig.of(cohort_size=200, over_selection=0.3)) == 260
    assert num_asked(TrainConfig.of(cohort_size=3, over_selection=0.1)) == 4


def test_a_run_says_what_was_sent_and_lost(tiny_store: Path, tmp_path: Path) -> None:
    options = {"over_selection": 0.6, "dropout_rate": 0.4, "model": "small_cnn", "central_num_iterations": 6}
    rows = read_rows(RunFolder(train(small_config(tiny_store, run=tmp_path / "run", **options))))
    for row in rows:
        asked = row["train/num_clients"] + row["train/num_dropped"] + row["train/num_late"]
        assert asked == 5
        assert row["train/num_clients"] <= 3
        assert row["train/bytes_down"] == 5 * 4 * 390_948
        assert row["train/bytes_up"] == row["train/num_clients"] * 4 * 390_948
    assert sum(row["train/num_dropped"] for row in rows) > 0


def test_a_round_that_nobody_answers_moves_nothing_and_goes_on(tiny_store: Path, tmp_path: Path) -> None:
    options = {"dropout_rate": 0.999999, "model": "small_cnn", "central_num_iterations": 2}
    rows = read_rows(RunFolder(train(small_config(tiny_store, run=tmp_path / "run", **options))))
    assert [(row["train/num_clients"], row["train/loss"], row["train/simulated_seconds"]) for row in rows] == [
        (0, None, 0.0)
    ] * 2


def test_more_than_there_are_cannot_be_asked(tiny_store: Path) -> None:
    with pytest.raises(ConfigError, match="cohort_size: 7 with over_selection is more than the 6 training clients"):
        make_setup(small_config(tiny_store, cohort_size=4, over_selection=0.6), noise_seed=0)
