"""Whole rounds and whole runs: against plain PyTorch, by hand, resumed, interrupted."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fedflair.backends.threads import thread_backend
from fedflair.commands.train import parse_train_config
from fedflair.data.images.crops import decode, train_inputs
from fedflair.engine.flat_model import flatten
from fedflair.errors import ConfigError, DataError
from fedflair.federated.algorithms.fedavg import make as make_fedavg
from fedflair.federated.client import ClientUpdate
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.sampling import stream
from fedflair.training.checkpoint import load_state
from fedflair.training.round import run_round
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.prepared import Prepared, run
from tests.small_runs import command, small_config, timeless_rows


def reference_round(setup: TrainingSetup, cohort: list[str], round_: int) -> nn.Module:
    """The same round in plain PyTorch: a loop, torch.optim.SGD, a mean, torch.optim.AdamW."""
    config = setup.config
    server = copy.deepcopy(setup.worker.module)
    deltas = []
    for client_id in cohort:
        generator = stream(config.run.seed, "client", round_, client_id)
        client = setup.worker.clients.load(client_id, config.data.max_num_user_images, generator)
        generator.integers(2**62)
        model = copy.deepcopy(setup.worker.module).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=config.local.local_learning_rate)
        pixels, labels = decode(client.images), torch.from_numpy(client.labels).float()
        for _ in range(config.local.local_num_epochs):
            order = generator.permutation(len(pixels))
            for start in range(0, len(order), config.local.local_batch_size):
                batch = order[start : start + config.local.local_batch_size]
                inputs = train_inputs([pixels[i] for i in batch], config.data.image_size, generator)
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(model(inputs), labels[batch]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.local.local_max_grad_norm)
                optimizer.step()
        deltas.append([a.detach() - b.detach() for a, b in zip(model.parameters(), server.parameters())])
    optimizer = torch.optim.AdamW(server.parameters(), lr=0.05, betas=(0.9, 0.99), eps=0.01, weight_decay=0.0)
    for parameter, *parts in zip(server.parameters(), *deltas):
        parameter.grad = -torch.stack(parts).mean(0)
    optimizer.step()
    return server


@pytest.mark.parametrize("model_type", ["resnet18", "mobilenet_v3_small"])
def test_a_round_equals_plain_pytorch(tiny_store: Path, model_type: str) -> None:
    # Without dropout, whose masks plain PyTorch draws from global state.
    # Small steps: at a learning rate of 0.01 the two orders of summation in float32 part ways after a few steps.
    options = {"num_threads": 2, "model_type": model_type, "local_batch_size": 4, "local_learning_rate": 1e-4}
    setup = make_setup(small_config(tiny_store, **options), noise_seed=0)
    for module in setup.worker.module.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    cohort = setup.sampler.sample(0)
    expected = reference_round(setup, cohort, 0)
    with thread_backend(setup.worker) as backend:
        state, _ = run_round(initial_state(setup), cohort, setup=setup, backend=backend)
    model = flatten(copy.deepcopy(setup.worker.module), setup.worker.device)
    model.parameters.copy_(state.parameters)
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(expected.parameters(), setup.worker.module.parameters())
    )
    assert moved > 1e-4
    for (name, ours), theirs in zip(model.module.named_parameters(), expected.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_fedavg_of_two_clients_by_hand(tiny_store: Path) -> None:
    # Weighted by 1 and 3 images: mean delta = (1 * [4, 0] + 3 * [0, 8]) / 4 = [1, 6]; server rate 0.5.
    config = small_config(
        tiny_store, weighting="num_examples", central_optimizer="sgd", learning_rate=0.5, central_lr_end=0.5
    )
    setup = make_setup(config, noise_seed=0)
    sizes = {setup.worker.clients.client_ids[0]: 1, setup.worker.clients.client_ids[2]: 3}
    deltas = {1: [4.0, 0.0], 3: [0.0, 8.0]}
    plain = make_fedavg(config, 6)

    def client_update(model: Any, server: Any, client: Any, generator: Any) -> ClientUpdate:
        from fedflair.federated.algorithms.base import client_weight
        from fedflair.federated.local_metrics import LocalMetrics

        weight = client_weight(config, client.num_examples)
        return ClientUpdate(torch.tensor(deltas[client.num_examples]), weight, client.num_examples, LocalMetrics())

    two = replace(setup, worker=replace(setup.worker, algorithm=replace(plain, client_update=client_update)))
    state = initial_state(setup)
    state = state.__class__(0, torch.tensor([10.0, 20.0]), {}, {}, state.mechanism_state)
    with thread_backend(two.worker) as backend:
        after, total = run_round(state, list(sizes), setup=two, backend=backend)
    assert total.weight == 4.0
    assert after.parameters.tolist() == [10.5, 23.0]
    assert after.round == 1


def test_results_do_not_depend_on_the_number_of_threads(tiny_store: Path, tmp_path: Path) -> None:
    finals = []
    for threads in (1, 3):
        folder = train(small_config(tiny_store, num_threads=threads, run=tmp_path / f"run{threads}"))
        finals.append(load_state(RunFolder(folder).last, torch.device("cpu"))[0].parameters)
    assert torch.equal(finals[0], finals[1])


@pytest.mark.parametrize("dataset", ["flair", "flair_iid"])
def test_a_run_leaves_everything_in_its_folder(tiny_store: Path, tmp_path: Path, dataset: str) -> None:
    folder = RunFolder(train(small_config(tiny_store, dataset=dataset, run=tmp_path / "run")))
    rows = read_rows(folder)
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert ["val/macro_ap" in row for row in rows] == [False, True, False, True]
    summary = read_summary(folder)
    assert summary["setting"] == dataset
    assert summary["rounds"] == 4
    assert summary["privacy"] is None
    assert summary["test"].keys() >= {"macro_ap", "micro_ap", "macro_f1", "loss"}
    best = max(row["val/macro_ap"] for row in rows if "val/macro_ap" in row)
    assert summary["val"]["macro_ap"] == pytest.approx(best, abs=1e-9)
    assert len(folder.csv.read_text().splitlines()) == 5
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    (told,) = events.Scalars("test/macro_ap")
    assert told.value == pytest.approx(read_summary(folder)["test"]["macro_ap"])
    label_ap = json.loads(folder.label_ap.read_text())
    assert list(label_ap) == ["animal", "food", "outdoor", "plant"]
    assert sum(label_ap.values()) / 4 == pytest.approx(summary["test"]["macro_ap"])
    assert folder.last.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="already holds a run"):
        train(small_config(tiny_store, run=tmp_path / "run"))


# Asked to stop, a run writes a checkpoint, with the place of its noise and its ledger; killed, it leaves an older one.
# What kills do to private runs is in privacy/test_killed_runs.py.
@pytest.mark.parametrize(("number", "private"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_stopped_run_resumes_bit_for_bit(tiny_store: Path, tmp_path: Path, number: int, private: bool) -> None:
    options: dict[str, Any] = {"model": "small_cnn", "central_num_iterations": 20, "central_optimizer": "adam"}
    if private:
        options |= {
            "central_privacy_mechanism": "gaussian_moments_accountant",
            "noise_from_seed": True,
            "central_delta": 0.01,
            "central_epsilon": 50.0,
        }
    whole = RunFolder(train(small_config(tiny_store, run=tmp_path / "whole", **options)))
    halted = small_config(tiny_store, run=tmp_path / "halted", **options)
    process = Prepared(command(halted)[3:])
    try:
        deadline = time.monotonic() + 120
        while len(read_rows(RunFolder(tmp_path / "halted"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "continue with: fedflair train --resume" in errors
        assert "Traceback" not in errors and "internal error" not in errors
    assert not RunFolder(tmp_path / "halted").summary.exists()
    resumed = run(["train", "--resume", "--run", str(tmp_path / "halted")])
    assert resumed.returncode == 0, resumed.stderr
    one, two = (load_state(RunFolder(tmp_path / name).last, torch.device("cpu")) for name in ("whole", "halted"))
    assert torch.equal(one[0].parameters, two[0].parameters)
    for name, tensor in one[0].optimizer_state.items():
        assert torch.equal(tensor, two[0].optimizer_state[name])
    assert timeless_rows(tmp_path / "whole") == timeless_rows(tmp_path / "halted")
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "halted")]
    assert summaries[0]["test"] == summaries[1]["test"]
    if private:
        for name in ("whole", "halted"):
            assert verify(tmp_path / name, use_cache=True).problems == ()
        ledgers = [(tmp_path / name / "privacy_ledger.jsonl").read_text().splitlines() for name in ("whole", "halted")]
        assert ledgers[0] == ledgers[1]
        assert len(ledgers[0]) == 21
    assert whole.path.exists()


def test_a_run_out_of_patience_ends_early_stopped_or_not(tiny_store: Path, tmp_path: Path) -> None:
    # A server that hardly moves: the first evaluation stays the best, and two more without a better one are allowed.
    options = {
        "central_num_iterations": 100,
        "early_stopping_patience": 2,
        "learning_rate": 1e-9,
        "central_lr_end": 0.0,
        "model": "small_cnn",
    }
    whole = RunFolder(train(small_config(tiny_store, run=tmp_path / "whole", **options)))
    assert [row["round"] for row in read_rows(whole)] == [1, 2, 3, 4, 5, 6]
    summary = read_summary(whole)
    assert (summary["rounds"], summary["best_round"]) == (6, 2)
    halted = small_config(tiny_store, run=tmp_path / "halted", **options)
    process = Prepared(command(halted)[3:])
    try:
        deadline = time.monotonic() + 120
        while len(read_rows(RunFolder(tmp_path / "halted"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    train(parse_train_config(["--resume", "--run", str(tmp_path / "halted")]))
    assert timeless_rows(tmp_path / "halted") == timeless_rows(tmp_path / "whole")
    train(parse_train_config(["--resume", "--run", str(tmp_path / "halted")]))
    assert timeless_rows(tmp_path / "halted") == timeless_rows(tmp_path / "whole")
    again = read_summary(RunFolder(tmp_path / "halted"))
    assert (again["rounds"], again["best_round"], again["test"]) == (6, 2, summary["test"])


def test_resuming_with_another_option_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    train(small_config(tiny_store, run=tmp_path / "run", central_num_iterations=1))
    with pytest.raises(ConfigError, match=r"cohort_size: 5 differs from 3"):
        parse_train_config(["--resume", "--run", str(tmp_path / "run"), "--cohort_size", "5"])
    with pytest.raises(DataError, match="not a run folder"):
        parse_train_config(["--resume", "--run", str(tmp_path / "nothing")])


def test_impossible_settings_are_refused_before_anything_is_written(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cohort_size: 7 is more than the 6 training clients"):
        train(small_config(tiny_store, cohort_size=7, run=tmp_path / "run"))
    with pytest.raises(DataError, match="no such store"):
        train(small_config(tmp_path / "absent.hdf5", run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_large_user_draws_a_fresh_subset_each_round(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, max_num_user_images=3), noise_seed=0)
    large = max(setup.worker.clients.client_ids, key=setup.worker.clients.num_images)
    subsets = set()
    for round_ in range(6):
        client = setup.worker.clients.load(large, 3, stream(0, "client", round_, large))
        assert client.num_examples == 3
        subsets.add(tuple(int(np.sum(image, dtype=np.int64)) for image in client.images))
    assert len(subsets) > 1
