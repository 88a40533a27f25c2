"""Checkpoints: what does not fit together is refused, with a way back, and the way back gives the same run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fedflair.cli import main
from fedflair.commands.train import parse_train_config
from fedflair.errors import ConfigError, DataError, FedflairError
from fedflair.evaluation.run import score_run
from fedflair.federated.client_states import STORAGES, ClientStates, open_states
from fedflair.federated.server import ServerState
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.provenance import read_provenance
from fedflair.runs.tensors import load_facts, load_tensors
from fedflair.training.checkpoint import check_states, go_back, load_state, save_checkpoint
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests import prepared
from tests.small_runs import command, small_config, timeless_rows
from tests.write_order import write_order

PRIVATE = {
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "noise_from_seed": True,
    "central_delta": 0.01,
    "central_epsilon": 50.0,
}
SCAFFOLD = {"algorithm_name": "scaffold", "scaffold_max_clients": 4}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "private": PRIVATE,
    "states on disk": SCAFFOLD,
    "states in memory": {**SCAFFOLD, "scaffold_states": "memory"},
}


def resume(run: Path, *more: str) -> Path:
    return train(parse_train_config(["--resume", "--run", str(run), *more]))


@pytest.fixture(scope="module")
def runs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A finished run of six rounds of each kind, with a checkpoint every second one."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run_of(kind: str) -> Path:
        if kind not in made:
            options = {"model": "small_cnn", "central_num_iterations": 6, "num_threads": 1, **KINDS[kind]}
            made[kind] = train(small_config(tiny_store, run=folder / kind, **options))
        return made[kind]

    return run_of


@pytest.fixture
def copied(runs: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(runs(kind), tmp_path / "run"))


def assert_same_end(one: Path, two: Path) -> None:
    (here, _), (there, _) = (load_tensors(RunFolder(run).last) for run in (one, two))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert timeless_rows(one) == timeless_rows(two)
    summaries = [read_summary(RunFolder(run)) for run in (one, two)]
    assert all(summaries[0][name] == summaries[1][name] for name in ("best_round", "val", "test"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_before_the_last_leads_to_the_same_end(
    runs: Callable[[str], Path], copied: Callable[[str], Path], kind: str
) -> None:
    run = RunFolder(copied(kind))
    assert [(load_facts(path) or {})["round"] for path in (run.previous, run.last)] == [4, 6]
    run.last.write_bytes(run.last.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"last.safetensors: damaged .*--resume_from previous --run {run.path}"):
        resume(run.path)
    resume(run.path, "--resume_from", "previous")
    assert_same_end(run.path, runs(kind))
    if kind == "private":
        assert verify(run.path).problems == ()
        ledgers = [(path / "privacy_ledger.jsonl").read_bytes() for path in (run.path, runs(kind))]
        assert ledgers[0] == ledgers[1]
    # And once more, from the checkpoint that was last then.
    resume(run.path)
    assert_same_end(run.path, runs(kind))


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def set_option(name: str, value: Any) -> Callable[[RunFolder], None]:
    def change(run: RunFolder) -> None:
        run.config.write_text(yaml.safe_dump({**yaml.safe_load(run.config.read_text()), name: value}))

    return change


def drop_a_row(run: RunFolder) -> None:
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:1] + lines[2:]))


def edit_a_row(run: RunFolder) -> None:
    run.metrics.write_text(run.metrics.read_text().replace('"train/num_examples": ', '"train/num_examples": 1', 1))


def edit_the_round(run: RunFolder) -> None:
    run.last.write_bytes(run.last.read_bytes().replace(b'"round\\": 6', b'"round\\": 2'))


def of_another_run(run: RunFolder) -> None:
    raw = json.loads(run.provenance.read_text())
    run.provenance.write_text(json.dumps({**raw, "options": {**raw["options"], "seed": 7}}))
    set_option("seed", 7)(run)


def lose_states(run: RunFolder) -> None:
    max((run.path / "client_states").rglob("*.safetensors"), key=lambda path: path.name.split(".")[1]).unlink()


DAMAGE: dict[str, tuple[str, Callable[[RunFolder], None], str]] = {
    "a bit of the checkpoint": ("private", lambda run: flip(run.last), r"last.safetensors: damaged .*resume_from prev"),
    "its round": ("private", edit_the_round, r"last.safetensors: damaged"),
    "the fixed tensors": ("plain", lambda run: flip(run.fixed), r"fixed.safetensors: damaged"),
    "a missing row": ("plain", drop_a_row, r"metrics.jsonl: rows of the first 6 rounds are missing or were changed"),
    "an edited row": ("plain", edit_a_row, r"metrics.jsonl: rows of .*--resume_from previous"),
    "no rows": ("plain", lambda run: run.metrics.unlink(), r"metrics.jsonl: rows of the first 6"),
    "the seed": ("plain", set_option("seed", 5), r"config.yaml: seed is 5, but the run was started with 0"),
    "the mechanism": ("private", set_option("central_privacy_mechanism", "none"), r"config.yaml: central_privacy_mech"),
    "rounds": ("plain", set_option("central_num_iterations", 9), r"config.yaml: central_num_iterations is 9"),
    "provenance as well": ("plain", of_another_run, r"provenance.json: missing, or changed since the checkpoint"),
    "no provenance": ("plain", lambda run: run.provenance.unlink(), r"provenance.json: missing, or changed"),
    "damaged provenance": (
        "plain",
        lambda run: run.provenance.write_text("{"),
        r"provenance.json: not JSON; restore it",
    ),
    "a client's state": ("states on disk", lose_states, r"client_states: states of clients are missing"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_does_not_fit_is_refused_in_one_line(copied: Callable[[str], Path], what: str) -> None:
    kind, damage, message = DAMAGE[what]
    run = RunFolder(copied(kind))
    before = run.summary.read_bytes()
    damage(run)
    with pytest.raises(FedflairError, match=message) as caught:
        resume(run.path)
    assert "\n" not in str(caught.value)
    assert run.summary.read_bytes() == before


@pytest.mark.parametrize("what", ["a bit of the checkpoint", "its round"])
def test_what_is_refused_can_go_back(runs: Callable[[str], Path], copied: Callable[[str], Path], what: str) -> None:
    kind, damage, _ = DAMAGE[what]
    run = RunFolder(copied(kind))
    damage(run)
    resume(run.path, "--resume_from", "previous")
    assert_same_end(run.path, runs(kind))


def test_a_best_model_that_is_damaged_or_another_is_refused(copied: Callable[[str], Path]) -> None:
    run = RunFolder(copied("plain"))
    whole = run.best.read_bytes()
    flip(run.best)
    with pytest.raises(DataError, match=r"best.safetensors: damaged .*--checkpoint last"):
        score_run(run.path, "test", "best")
    with pytest.raises(DataError, match=r"best.safetensors: damaged .*restore it"):
        resume(run.path)
    best_round = (load_facts(run.last) or {})["best_round"]
    changed = whole.replace(f'"best_round\\": {best_round}'.encode(), f'"best_round\\": {best_round + 1}'.encode())
    assert changed != whole
    run.best.write_bytes(changed)
    with pytest.raises(DataError, match=r"best.safetensors: damaged"):
        resume(run.path)


def test_evaluation_reads_no_options_but_the_runs_own(copied: Callable[[str], Path]) -> None:
    run = RunFolder(copied("private"))
    set_option("central_privacy_mechanism", "none")(run)
    with pytest.raises(DataError, match=r"config.yaml: central_privacy_mechanism is none, but"):
        score_run(run.path, "test", "best")


def test_what_says_how_fast_a_run_goes_may_change_in_its_configuration(
    runs: Callable[[str], Path], copied: Callable[[str], Path]
) -> None:
    run = RunFolder(copied("plain"))
    set_option("num_threads", 2)(run)
    resume(run.path, "--resume_from", "previous", "--worker_timeout", "9")
    assert_same_end(run.path, runs("plain"))


def test_going_back_needs_a_checkpoint_and_a_run_to_resume(copied: Callable[[str], Path]) -> None:
    run = RunFolder(copied("plain"))
    run.previous.unlink()
    flip(run.last)
    with pytest.raises(DataError, match=r"last.safetensors: damaged .*; start the run again"):
        resume(run.path)
    with pytest.raises(DataError, match=r"previous.safetensors: no such checkpoint"):
        resume(run.path, "--resume_from", "previous")
    with pytest.raises(ConfigError, match="resume_from: previous says where to continue; give --resume with it"):
        parse_train_config(["--resume_from", "previous"])


def without_checksums(path: Path) -> None:
    """The checkpoint as earlier versions wrote it."""
    from safetensors.torch import save_file

    tensors, facts = load_tensors(path)
    old = {name: facts[name] for name in facts if name not in ("provenance", "metrics", "client_states")}
    save_file(tensors, path, metadata={"facts": json.dumps(old)})


def test_a_run_of_an_earlier_version_goes_on_and_says_so(
    runs: Callable[[str], Path], copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(copied("plain"))
    run.provenance.unlink()
    for path in (run.last, run.previous, run.best, run.fixed):
        without_checksums(path)
    score_run(run.path, "test", "best")
    resume(run.path, "--resume_from", "previous")
    assert len(re.findall("begun by an earlier fedflair, without checksums", capsys.readouterr().err)) == 1
    assert_same_end(run.path, runs("plain"))
    assert read_provenance(run) == read_provenance(RunFolder(runs("plain")))
    resume(run.path)
    assert "earlier fedflair" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["states on disk", "states in memory", "private"])
def test_a_checkpoint_takes_its_name_after_all_that_it_covers_is_on_the_disk(
    tiny_store: Path, tmp_path: Path, kind: str
) -> None:
    with write_order(tmp_path / "run") as order:
        options = {"model": "small_cnn", "num_threads": 1, **KINDS[kind]}
        train(small_config(tiny_store, run=tmp_path / "run", **options))
    order.check(later="client_states")
    # Round 0, 2 and 4; each but the first makes the one that was the last the previous one, before.
    assert [name for name in order.names() if name in ("last.safetensors", "previous.safetensors")] == [
        *("last.safetensors", "previous.safetensors", "last.safetensors", "previous.safetensors", "last.safetensors")
    ]
    covered = {"metrics.jsonl", "privacy_ledger.jsonl", "config.yaml", "provenance.json", "fixed.safetensors"}
    for event in order.taken("last.safetensors"):
        states = {name for name in event.unsynced if name[0].isdigit()}
        assert event.unsynced & covered | states == set()
    # The model of a round leaves the run after the checkpoint of that round; in between nothing takes a name.
    names = order.names()
    assert "best.safetensors" in names
    assert {names[k - 1] for k, name in enumerate(names) if name == "best.safetensors"} == {"last.safetensors"}
    for name in ("label_ap.json", "summary.json"):
        assert names.index(name) > max(k for k, taken in enumerate(names) if taken == "last.safetensors")
    if kind == "private":
        # A round's line is synced before whatever depends on the round: each of them right after it was written.
        assert order.names("fsync").count("privacy_ledger.jsonl") == 5


@pytest.mark.parametrize("kind", STORAGES)
def test_a_checkpoint_written_twice_leaves_the_one_before_whole(tmp_path: Path, kind: str) -> None:
    # A run that is stopped right after a checkpoint writes that one again.
    run, clients = RunFolder(tmp_path), ["a", "b"]

    def opened(round_: int) -> ClientStates:
        return open_states(STORAGES[kind](tmp_path / "client_states"), clients, round_, None)

    states = opened(0)
    for round_ in range(3):
        save_checkpoint(run, ServerState(round_, torch.ones(2) * round_, {}, {}, {}), {}, states)
        states.put(round_, {"a": {"control": torch.tensor([float(round_)])}})
    save_checkpoint(run, ServerState(2, torch.ones(2) * 2, {}, {}, {}), {}, states)
    assert [(load_facts(path) or {})["round"] for path in (run.previous, run.last)] == [1, 2]
    go_back(run)
    assert load_state(run.last, torch.device("cpu"))[0].parameters.tolist() == [1.0, 1.0]
    back = opened(1)
    check_states(run, back, 1)
    assert back.get(1, "a")["control"].tolist() == [0.0]


def test_rows_that_survive_are_those_that_a_checkpoint_covers(tiny_store: Path, tmp_path: Path) -> None:
    # Killed between the last row and the next checkpoint: rows after the checkpoint are written again, none twice.
    options = {"model": "small_cnn", "num_threads": 1, "central_num_iterations": 4}
    run = RunFolder(train(small_config(tiny_store, run=tmp_path / "run", **options)))
    rows = run.metrics.read_text()
    resume(run.path, "--resume_from", "previous")
    kept = rows.splitlines()[:2]
    assert run.metrics.read_text().splitlines()[:2] == kept


def die_in_round_three(victim: str, words: Sequence[str]) -> int:
    """Runs a command in a process that dies just before the file of round 3 takes its name."""
    replace, victims = os.replace, 0

    def die(source: Any, target: Any) -> None:
        nonlocal victims
        victims += Path(target).name == victim
        if victims == (2 if victim == "last.safetensors" else 1):
            os._exit(9)
        replace(source, target)

    os.replace = die
    return main(words)


@pytest.mark.parametrize("victim", ["last.safetensors", "best.safetensors"])
def test_a_kill_between_a_rounds_line_its_checkpoint_and_its_model_costs_nothing(
    tiny_store: Path, tmp_path: Path, victim: str
) -> None:
    options = {"model": "small_cnn", "num_threads": 1, "central_num_iterations": 3, "evaluation_frequency": 3}
    config = small_config(tiny_store, run=tmp_path / "whole", **options, **PRIVATE)
    whole = RunFolder(train(config))
    words = command(config.changed(run=tmp_path / "killed"))[3:]
    done = prepared.run(words, through=partial(die_in_round_three, victim))
    assert done.returncode == 9, done.stderr
    killed = RunFolder(tmp_path / "killed")
    assert not killed.best.exists()
    assert len((killed.path / "privacy_ledger.jsonl").read_text().splitlines()) == 1 + 3
    assert (load_facts(killed.last) or {})["round"] == (0 if victim == "last.safetensors" else 3)
    assert verify(killed.path, use_cache=True).problems == ()
    resume(killed.path)
    assert_same_end(killed.path, whole.path)
    assert torch.equal(load_tensors(killed.best)[0]["parameters"], load_tensors(whole.best)[0]["parameters"])
    assert (load_facts(killed.best) or {}).keys() == (load_facts(whole.best) or {}).keys()
    ledgers = [(run.path / "privacy_ledger.jsonl").read_bytes() for run in (killed, whole)]
    assert ledgers[0] == ledgers[1]
    assert verify(killed.path, use_cache=True).problems == ()


def test_a_checkpoint_is_closed_to_others_where_there_are_no_hard_links(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(copied("private"))

    def refuse(*arguments: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr("os.link", refuse)
    run.previous.chmod(0o644)
    go_back(run)
    assert run.last.stat().st_mode & 0o777 == 0o600
    assert run.last.read_bytes() == run.previous.read_bytes()
