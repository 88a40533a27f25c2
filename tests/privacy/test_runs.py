"""Whole training runs with each mechanism: what they promise, what they keep, what they mark and what they hide."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedflair.backends.threads import thread_backend
from fedflair.commands.report import report as write_report
from fedflair.errors import Interrupted
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.ledger.lines import sealed, told
from fedflair.privacy.mechanisms import CohortStats
from fedflair.privacy.mechanisms.clipping import vector_norm
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.training import record
from fedflair.training.checkpoint import load_state
from fedflair.training.round import run_round
from fedflair.training.train import train
from fedflair.training.verification import verify
from fedflair.training.words import describe_setup, noise_words
from tests import prepared
from tests.privacy.runs import MECHANISMS, run_config
from tests.small_runs import timeless_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_of(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Any:
    """The finished run of a mechanism, trained once, with noise from the operating system."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("runs") / name.replace(" ", "-")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(shared_cache))
                made[name] = train(run_config(tiny_store, folder, name))
        return made[name]

    return run


def ledger_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "privacy_ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [name for name in MECHANISMS if "local" not in name])
def test_a_run_with_a_central_mechanism_has_a_ledger_that_verifies(run_of: Any, name: str) -> None:
    run = run_of(name)
    found = verify(run, use_cache=True)
    assert (found.problems, found.num_rounds) == ((), 8)
    terms, *rounds = ledger_lines(run)
    facts = read_summary(RunFolder(run))["privacy"]
    assert found.epsilon == pytest.approx(facts["epsilon"], rel=1e-6)
    assert found.run_epsilon == pytest.approx(facts["run_epsilon"], rel=1e-6)
    assert found.simulated is (name == "simulated")
    assert all(0 <= line["realised_cohort"] <= 6 for line in rounds)
    # Rounds never state more than all of them together, and the last one that.
    stated = [line["epsilon"] for line in rounds]
    assert stated == sorted(stated)
    assert stated[-1] == facts["epsilon"]
    assert terms["accountant"] == ("monte_carlo" if name == "apart" else "pld")


def test_the_command_verifies_a_run(run_of: Any) -> None:
    done = prepared.run(["ledger", "verify", str(run_of("moments"))])
    assert "sound, 8 rounds" in done.stdout
    assert "epsilon of the run: 8 at delta 0.01" in done.stdout


@pytest.mark.parametrize("name", ["local gaussian", "local laplace", "both"])
def test_a_local_mechanism_says_what_one_update_and_all_of_them_cost(run_of: Any, name: str) -> None:
    facts = read_summary(RunFolder(run_of(name)))["local_privacy"]
    assert facts["epsilon_per_release"] == 8.0
    assert facts["expected_participations"] == 4
    assert facts["epsilon"] > facts["epsilon_expected"] > 8.0
    assert facts["words"].startswith("Local privacy: epsilon 8 at delta 1e-05 towards the server for one update; ")
    assert "for a client asked 4 times (the expected number)" in facts["words"]
    assert (run_of(name) / "privacy_ledger.jsonl").exists() is (name == "both")


def test_the_adaptive_bound_moves_and_the_ledger_has_it(run_of: Any) -> None:
    terms, *rounds = ledger_lines(run_of("adaptive"))
    bounds = [line["clipping_bound"] for line in rounds]
    assert bounds[0] == 0.1
    assert len(set(bounds)) == 8
    assert terms["count_noise_std"] == 2.0
    for line in rounds:
        assert line["noise_std"] / line["clipping_bound"] == pytest.approx(terms["noise_std"] / 0.1, rel=1e-12)
        assert line["sensitivity"] == line["clipping_bound"]
    rows = read_rows(RunFolder(run_of("adaptive")))
    assert [row["privacy/clipping_bound"] for row in rows][:-1] == bounds[1:]


def test_banded_cohorts_come_from_groups_in_turn_and_the_state_has_a_noise_a_band(
    run_of: Any, tiny_store: Path
) -> None:
    run = run_of("banded")
    state, facts = load_state(RunFolder(run).last, CPU)
    assert state.mechanism_state["noises"].shape == (3, state.parameters.numel())
    assert bool(state.mechanism_state["noises"].abs().sum(1).gt(0).all())
    terms, *rounds = ledger_lines(run)
    assert terms["min_separation"] == 3
    assert terms["event"]["count"] == 3
    # What a round adds has the noises before it in it too; a row of metrics is about the next round.
    stated = [line["noise_std"] for line in rounds]
    assert stated[0] == terms["noise_std"] < stated[1] < stated[-1]
    assert [row["privacy/noise_std"] for row in read_rows(RunFolder(run))][:-1] == stated[1:]
    assert terms["event"]["sampling_rate"] == 0.5
    # The cohorts that the run's seed leads to are those that the ledger counted, and nobody comes back too soon.
    setup = make_setup(run_config(tiny_store, run, "banded"), int(facts["noise_seed"]))
    cohorts = [setup.sampler.sample(round_) for round_ in range(8)]
    assert [line["realised_cohort"] for line in rounds] == [len(cohort) for cohort in cohorts]
    groups = [set().union(*(setup.sampler.sample(3 * k + group) for k in range(60))) for group in range(3)]
    assert sorted(set().union(*groups)) == sorted(setup.worker.clients.client_ids)
    assert sum(len(group) for group in groups) == 6


def test_cohorts_that_rotate_hold_everybody_in_turn_and_the_state_has_a_few_vectors(
    run_of: Any, tiny_store: Path
) -> None:
    run = run_of("blt")
    state, _ = load_state(RunFolder(run).last, CPU)
    assert state.mechanism_state["buffers"].shape == (1, state.parameters.numel())
    terms, *rounds = ledger_lines(run)
    assert (terms["min_separation"], terms["sampling"], terms["event"]["sampling"]) == (3, "rotating", "none")
    assert [line["realised_cohort"] for line in rounds] == [2] * 8
    # Nothing about them is secret: whoever knows the configuration knows them, whatever the noise seed is.
    setup = make_setup(run_config(tiny_store, run, "blt"), noise_seed=5)
    cohorts = [setup.sampler.sample(round_) for round_ in range(6)]
    assert sorted(cohorts[0] + cohorts[1] + cohorts[2]) == sorted(setup.worker.clients.client_ids)
    assert cohorts[3:] == cohorts[:3]


@pytest.mark.parametrize("order", [1.0, 3.0, math.inf])
def test_norm_clipping_only_clips_in_any_order_and_promises_nothing(
    tiny_store: Path, tmp_path: Path, order: float
) -> None:
    options: dict[str, Any] = {"central_privacy_mechanism": "norm_clipping_only", "central_order": order}
    config = run_config(tiny_store, tmp_path / "run", "moments", **options, central_num_iterations=1)
    setup = make_setup(config, noise_seed=1)
    state = initial_state(setup)
    with thread_backend(setup.worker) as backend:
        _, total = run_round(state, setup.worker.clients.client_ids[4:5], setup=setup, backend=backend)
    assert total.delta is not None
    assert vector_norm(total.delta, order) == pytest.approx(0.1, rel=1e-5) if total.cohort.num_clipped else order > 2
    train(config)
    summary = read_summary(RunFolder(tmp_path / "run"))
    assert summary["privacy"]["epsilon"] is None
    assert "not private" in summary["privacy"]["words"]
    assert summary["not_covered_by_epsilon"] is None
    assert "not_covered_by_epsilon" not in read_rows(RunFolder(tmp_path / "run"))[0]
    assert not (tmp_path / "run" / "privacy_ledger.jsonl").exists()


def test_local_noise_is_of_the_client_and_the_round(tiny_store: Path, tmp_path: Path) -> None:
    setup = make_setup(run_config(tiny_store, tmp_path, "local gaussian", central_optimizer="sgd"), noise_seed=9 << 70)
    update = setup.worker.algorithm.client_update

    def silent(model: Any, server: Any, client: Any, generator: Any) -> Any:
        return replace(update(model, server, client, generator), delta=torch.zeros_like(server.parameters))

    setup = replace(
        setup, worker=replace(setup.worker, algorithm=replace(setup.worker.algorithm, client_update=silent))
    )
    start, clients = initial_state(setup), setup.worker.clients.client_ids[:2]
    seen = {}
    with thread_backend(setup.worker) as backend:
        for round_ in (0, 1):
            for client in clients:
                _, total = run_round(replace(start, round=round_), [client], setup=setup, backend=backend)
                expected = torch.zeros_like(start.parameters)
                setup.worker.local_mechanism.privatise(expected, round_, client)
                assert total.delta is not None
                assert torch.equal(total.delta, expected)
                seen[round_, client] = expected / setup.worker.local_mechanism.description["noise_std"]
    correlations = torch.corrcoef(torch.stack(list(seen.values()))) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / math.sqrt(start.parameters.numel())


def test_the_bounds_of_groups_move_and_the_ledger_has_each(run_of: Any) -> None:
    run = run_of("grouped")
    terms, *rounds = ledger_lines(run)
    sizes = terms["clipping_groups"]
    assert set(sizes) == {"weights", "vectors", "head"}
    bounds = [line["group_clipping_bounds"] for line in rounds]
    assert all(len({bound[name] for bound in bounds}) == 8 for name in sizes)
    for line in rounds:
        mine, stds = line["group_clipping_bounds"], line["group_noise_stds"]
        assert line["sensitivity"] == pytest.approx(math.hypot(*mine.values()), rel=1e-12)
        moved = math.hypot(*(mine[name] / stds[name] for name in sizes), *[0.5 / terms["count_noise_std"]] * 3)
        assert moved == pytest.approx(1 / terms["noise_multiplier"], rel=1e-9)
    state, _ = load_state(RunFolder(run).last, CPU)
    assert state.parameters.numel() == sum(sizes.values())
    # The optimizer had each group's own noise: as many variances as groups, in the last round's proportions.
    variances = state.optimizer_state["noise_variance"]
    assert variances.shape == state.parameters.shape
    stds = rounds[-1]["group_noise_stds"]
    assert sorted(set(variances.tolist())) == pytest.approx(sorted((std / 3) ** 2 for std in stds.values()), rel=1e-5)


def test_metrics_with_noise_stand_in_rows_and_ledger_in_place_of_those_without(run_of: Any, tmp_path: Path) -> None:
    run = run_of("metrics")
    terms, *rounds = ledger_lines(run)
    assert terms["private_metrics"]["share"] == 0.2
    assert [line["sensitivity"] for line in rounds] == [pytest.approx(0.1, rel=1e-12)] * 8
    rows = read_rows(RunFolder(run))
    for row, line in zip(rows, rounds, strict=True):
        assert {f"private/{name}": value for name, value in line["private_metrics"].items()} == {
            name: value for name, value in row.items() if name.startswith("private/")
        }
        assert "train/loss" not in row
        assert not any(name.startswith("private/") for name in row["not_covered_by_epsilon"])
        # Clean counts with noise: near the realised cohort, and not it.
        assert 0 < abs(row["private/num_clients"] - line["realised_cohort"]) < 6 * _clients_std(terms)
    again = tmp_path / "again"
    shutil.copytree(run, again)
    lines = (again / "privacy_ledger.jsonl").read_text().splitlines()
    forged = json.loads(lines[3])
    forged["private_metrics"]["loss"] = "low"
    (again / "privacy_ledger.jsonl").write_text("\n".join(_resealed(lines[:3], forged)) + "\n")
    assert any("private_metrics {'num_clients'" in problem for problem in verify(again, use_cache=True).problems)


def _clients_std(terms: dict[str, Any]) -> float:
    return float(terms["private_metrics"]["num_clients_noise_std"])


def _resealed(before: list[str], line: dict[str, Any]) -> list[str]:
    """The lines ``before`` and another one, with the hash that it should have."""
    return [*before, sealed(told(line), json.loads(before[-1])["hash"])[0].rstrip("\n")]


@pytest.mark.parametrize("name", ["adaptive", "local gaussian"])
def test_what_epsilon_does_not_cover_is_marked_in_every_metrics_file(run_of: Any, name: str) -> None:
    folder = RunFolder(run_of(name))
    # Counts that tell the size of a cohort are in no file where that is secret.
    counts = {"train/num_clients", "train/num_examples", "train/bytes_up", "train/images_per_second"}
    open_names = {"train/loss", "train/seconds"} | (counts if name == "local gaussian" else set())
    for row in read_rows(folder):
        marks = row["not_covered_by_epsilon"]
        assert set(row) - set(marks) <= {
            "round", "privacy/clipping_bound", "privacy/noise_std", "privacy/estimated_signal_to_noise",
            "not_covered_by_epsilon",
        }  # fmt: skip
        assert ("privacy/estimated_signal_to_noise" in row) is (name == "adaptive")
        assert set(marks) >= open_names
        assert bool(counts & row.keys()) is (name == "local gaussian")
        assert ("val/macro_ap" in marks) is ("val/macro_ap" in row)
    with folder.csv.open() as file:
        table = list(csv.DictReader(file))
    assert [row["not_covered_by_epsilon"].split() for row in table] == [
        row["not_covered_by_epsilon"] for row in read_rows(folder)
    ]
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    for names in (table[0].keys(), events.Tags()["scalars"]):
        assert bool(counts & set(names)) is (name == "local gaussian")
    (words,) = events.Tensors("not_covered_by_epsilon/text_summary")
    assert b"the run's epsilon does not cover it" in words.tensor_proto.string_val[0]
    assert read_summary(folder)["not_covered_by_epsilon"] == ["best_round", "seconds", "val", "test", "label_ap.json"]


def test_the_report_says_what_is_not_covered(
    run_of: Any, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(run_config(tiny_store, tmp_path / "open", "moments", central_privacy_mechanism="none"))
    assert "not_covered_by_epsilon" not in (plain / "metrics.jsonl").read_text()
    runs = [plain, run_of("adaptive"), run_of("local gaussian")]
    write_report(*runs, output=tmp_path / "report.html")
    printed, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    said = "Not covered by epsilon: every score, loss, count and time shown here of adaptive, local-gaussian;"
    for text in (printed, page):
        assert said in text
        assert "Tuning is not covered either" in text
        assert "local-gaussian: Local privacy: epsilon 8" in text
    assert "by round; not covered by epsilon</figcaption>" in page
    write_report(plain, output=tmp_path / "open.html")
    assert "ot covered" not in (tmp_path / "open.html").read_text()
    assert read_summary(RunFolder(runs[1]))["privacy"]["epsilon"] == pytest.approx(8.0, rel=1e-4)


@pytest.mark.parametrize("name", ["moments", "local gaussian"])
def test_the_noise_seed_is_in_the_last_checkpoints_and_nowhere_else(run_of: Any, name: str) -> None:
    folder = RunFolder(run_of(name))
    seed = load_tensors(folder.last)[1]["noise_seed"]
    assert int(seed) > 1 << 100
    holders = [path for path in folder.path.rglob("*") if path.is_file() and seed.encode() in path.read_bytes()]
    assert sorted(holders) == [folder.last, folder.previous]
    assert "noise_seed" not in load_tensors(folder.best)[1]
    for path in (folder.last, folder.previous, folder.best, folder.fixed):
        assert path.stat().st_mode & 0o777 == 0o600
    if name == "moments":
        assert (folder.path / "privacy_ledger.jsonl").stat().st_mode & 0o777 == 0o600


# With all that keeps something of the noise from round to round; and with a bound for each group of parameters.
@pytest.mark.parametrize(
    ("name", "more"), [("blt", {"private_metrics": 0.2, "central_optimizer": "adam_bc"}), ("grouped", {})]
)
def test_a_run_stopped_in_an_evaluation_has_a_ledger_ahead_of_its_checkpoint_and_resumes(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"noise_from_seed": True, "central_eval_batch_size": 2, **more}
    whole = train(run_config(tiny_store, tmp_path / "whole", name, **options))
    score, count = record.score_partition, 0

    def score_and_stop(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return score(*arguments, **named)

    halted = run_config(tiny_store, tmp_path / "halted", name, **options)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped after round 5; continue with"):
        patch.setattr(record, "score_partition", score_and_stop)
        train(halted)
    last = RunFolder(tmp_path / "halted").last
    assert load_tensors(last)[1]["round"] == 5
    assert len(ledger_lines(tmp_path / "halted")) == 1 + 6
    found = verify(tmp_path / "halted", use_cache=True)
    assert (found.problems, found.num_rounds) == ((), 6)
    train(halted.changed(resume=True))
    assert (whole / "privacy_ledger.jsonl").read_bytes() == (tmp_path / "halted" / "privacy_ledger.jsonl").read_bytes()
    kept, wanted = load_tensors(last)[0], load_tensors(RunFolder(whole).last)[0]
    assert kept.keys() == wanted.keys()
    assert all(torch.equal(kept[key], wanted[key]) for key in wanted)
    assert timeless_rows(whole) == timeless_rows(tmp_path / "halted")


def test_a_run_that_stops_early_says_how_many_rounds_it_released(tiny_store: Path, tmp_path: Path) -> None:
    # With a learning rate this small no score moves, so the third evaluation is the second without a better one.
    config = run_config(
        tiny_store, tmp_path / "run", "moments", learning_rate=1e-30, central_lr_end=1e-30, evaluation_frequency=1,
        early_stopping_patience=2,
    )  # fmt: skip
    summary = read_summary(RunFolder(train(config)))
    assert summary["rounds"] == 3
    found = verify(tmp_path / "run", use_cache=True)
    assert (found.problems, found.num_rounds) == ((), 3)
    assert found.epsilon is not None
    assert found.epsilon < summary["privacy"]["epsilon"] == pytest.approx(8.0, rel=1e-4)


def test_metrics_of_no_cohort_are_no_number(tiny_store: Path, tmp_path: Path) -> None:
    # At this rate most cohorts are empty: noise is added all the same, and no loss is made up.
    config = run_config(tiny_store, tmp_path / "run", "moments", cohort_size=1, noise_from_seed=True)
    rows, (_, *rounds) = read_rows(RunFolder(train(config))), ledger_lines(tmp_path / "run")
    empty = [row for row, line in zip(rows, rounds) if line["realised_cohort"] == 0]
    assert [row["train/loss"] for row in empty] == [None] * 4
    assert math.isnan(LocalMetrics().loss)
    assert len(ledger_lines(tmp_path / "run")) == 9


@pytest.mark.parametrize("name", [name for name in MECHANISMS if "local" not in name])
def test_a_run_says_how_long_its_noise_is_before_it_starts(tiny_store: Path, tmp_path: Path, name: str) -> None:
    """The noise itself, measured in the norm that is clipped, of a sum over nobody."""
    setup = make_setup(run_config(tiny_store, tmp_path / "run", name), noise_seed=7 << 100)
    state = initial_state(setup)
    (told,) = re.findall(r"^Noise on a round's mean update: (\S+) times as long as", noise_words(setup, state))
    total = torch.zeros_like(state.parameters)
    noise, _ = setup.mechanism.add_noise(total, CohortStats(0, 0, 0), 0, state.mechanism_state)
    order = setup.mechanism.description["order"]
    assert order == (1.0 if name == "laplace" else 2.0)
    bound = 0.1 * setup.sampler.description.cohort_size
    assert float(torch.linalg.vector_norm(noise.double(), order)) / bound == pytest.approx(float(told), rel=0.02)
    assert noise_words(setup, state) in describe_setup(setup, state, RunFolder(tmp_path / "run"))


def test_without_noise_nothing_is_said_of_any(tiny_store: Path, tmp_path: Path) -> None:
    config = run_config(tiny_store, tmp_path / "run", "moments", central_privacy_mechanism="norm_clipping_only")
    setup = make_setup(config, noise_seed=1)
    assert noise_words(setup, initial_state(setup)) == ""
