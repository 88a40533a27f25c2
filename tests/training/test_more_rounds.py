"""More rounds for a run that has begun: the bits of a run that had as many from its beginning, or the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fedflair
from fedflair.cli import main
from fedflair.commands.train import parse_train_config
from fedflair.report.data import read_run
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.provenance import read_provenance
from fedflair.runs.tensors import load_tensors
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.small_runs import small_config, timeless_rows

SMALL: dict[str, Any] = {
    "model": "small_cnn",
    "num_threads": 1,
    "local_num_epochs": 1,
    "central_lr_schedule": "constant",
}
GAUSSIAN: dict[str, Any] = {
    "central_privacy_mechanism": "gaussian",
    "central_epsilon": 20.0,
    "central_delta": 0.01,
    "noise_from_seed": True,
    "accountant": "rdp",
}


def more(run: Path, rounds: int, *words: str) -> Path:
    return train(parse_train_config(["--resume", "--run", str(run), "--central_num_iterations", str(rounds), *words]))


def copy(run: Path, place: Path) -> Path:
    return Path(shutil.copytree(run, place))


def assert_same(run: Path, other: Path, *, less: tuple[str, ...] = ()) -> None:
    """Rows, models, state and summary, less what the clock and the place have a say in."""
    assert timeless_rows(run) == timeless_rows(other)
    for name in ("last", "best"):
        tensors, others = (load_tensors(getattr(RunFolder(folder), name))[0] for folder in (run, other))
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors), name
    summaries = [read_summary(RunFolder(folder)) for folder in (run, other)]
    for summary in summaries:
        for field in ("seconds", "environment", *less):
            summary.pop(field)
    assert summaries[0] == summaries[1]
    assert RunFolder(run).label_ap.read_bytes() == RunFolder(other).label_ap.read_bytes()


@pytest.fixture(scope="module")
def short(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 rounds whose clients keep states."""
    folder = tmp_path_factory.mktemp("more") / "short"
    return train(small_config(tiny_store, run=folder, algorithm_name="scaffold", **SMALL))


@pytest.fixture(scope="module")
def private(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 rounds, each of whose releases has an epsilon, with an anchor beside it."""
    folder = tmp_path_factory.mktemp("more") / "private"
    anchor = folder.with_name("anchor.jsonl")
    anchor.touch()
    return train(small_config(tiny_store, run=folder, ledger_anchor=anchor, **SMALL, **GAUSSIAN))


def test_they_are_those_of_a_run_that_had_them_from_its_beginning(
    short: Path, tiny_store: Path, tmp_path: Path
) -> None:
    options = {**SMALL, "algorithm_name": "scaffold", "central_num_iterations": 8}
    whole = train(small_config(tiny_store, run=tmp_path / "whole", **options))
    longer = more(more(copy(short, tmp_path / "longer"), 6), 8)
    assert_same(longer, whole)
    provenance = read_provenance(RunFolder(longer))
    assert provenance is not None
    assert provenance.totals == (4, 6, 8)
    assert provenance.digest() == read_provenance(RunFolder(short)).digest()  # type: ignore[union-attr] # it is there
    assert "central_num_iterations: 8\n" in (longer / "config.yaml").read_text()
    run = fedflair.open_run(longer)
    assert run.config.option("central_num_iterations") == 8
    assert [entry["round"] for entry in run.environment] == [0, 4, 6]
    assert "rounds 8 of 8" in repr(run)
    # Scored and read like any other.
    assert main(["evaluate", "--run", str(longer), "--partition", "val", "--json"]) == 0
    assert read_run(longer, "longer").options["central_num_iterations"] == 8


def test_a_private_runs_epsilon_is_stated_anew(private: Path, tiny_store: Path, tmp_path: Path) -> None:
    whole = train(
        small_config(tiny_store, run=tmp_path / "whole", **{**SMALL, **GAUSSIAN, "central_num_iterations": 7})
    )
    longer, anchor = copy(private, tmp_path / "longer"), private.with_name("anchor.jsonl")

    def stop(done: fedflair.RoundDone) -> None:
        if done.round == 5:
            raise KeyboardInterrupt

    with pytest.raises(fedflair.Interrupted):
        fedflair.resume(longer, central_num_iterations=7, callback=stop)
    assert not RunFolder(longer).summary.exists()
    # What a run of 7 rounds promises while it is under way, where line 1 of its ledger is about 4.
    told, expected = read_run(longer, "longer").privacy, read_summary(RunFolder(whole))["privacy"]
    assert dict(told or {}) == expected
    assert expected["rounds"] == 7
    under_way = verify(longer, anchor)
    assert (under_way.num_rounds, under_way.problems) == (5, ())
    fedflair.resume(longer)
    # The line of the best round has another hash than in a ledger that begins with 7 rounds.
    assert_same(longer, whole, less=("ledger",))
    found, of_whole = verify(longer, anchor), verify(whole)
    assert (found.problems, found.num_rounds) == ((), 7)
    assert (found.epsilon, found.run_epsilon) == (of_whole.epsilon, of_whole.run_epsilon)
    assert found.epsilon == expected["epsilon"] > read_summary(RunFolder(private))["privacy"]["epsilon"]
    assert "Begun with 4 rounds, which line 1 is about; more were added: 7." in found.notes
    # Each line states what its round had cost.
    lines, others = (
        [json.loads(line) for line in (folder / "privacy_ledger.jsonl").read_text().splitlines()[1:]]
        for folder in (longer, whole)
    )
    assert [line["epsilon"] for line in lines] == [line["epsilon"] for line in others]
    # A folder that hides them has rounds that nobody promised.
    forged = json.loads((longer / "provenance.json").read_text())
    del forged["more_rounds"]
    (longer / "provenance.json").write_text(json.dumps(forged))
    assert any("of a run of 4" in problem or "central_num_iterations" in problem for problem in verify(longer).problems)


def test_a_kill_between_two_files_is_made_good(short: Path, tmp_path: Path) -> None:
    longer = copy(short, tmp_path / "longer")
    before = (longer / "config.yaml").read_text()
    more(longer, 5)
    # As a kill leaves it that comes before config.yaml is written.
    (longer / "config.yaml").write_text(before)
    (longer / "summary.json").unlink()
    assert parse_train_config(["--resume", "--run", str(longer)]).option("central_num_iterations") == 5
    train(parse_train_config(["--resume", "--run", str(longer)]))
    assert "central_num_iterations: 5\n" in (longer / "config.yaml").read_text()
    assert read_summary(RunFolder(longer))["rounds"] == 5


REFUSED = {
    "fewer": ({}, 3, "central_num_iterations: 3 differs from 4 of the run in "),
    "local schedule": (
        {"local_lr_schedule": "polynomial"},
        8,
        "central_num_iterations: local_lr_schedule polynomial was to end in round 4, so that every round of a run of 8 "
        "would have been another one; start a new run of 8 rounds, or one with --start_from ",
    ),
    "server schedule": ({"central_lr_schedule": "cosine"}, 8, "central_num_iterations: central_lr_schedule cosine "),
    "whole budget": (
        {"central_privacy_mechanism": "gaussian_moments_accountant", "central_delta": 0.01},
        8,
        "central_num_iterations: the noise of gaussian_moments_accountant was scaled for the run's epsilon over 4 "
        "rounds, and each round more would cost more than that; start ",
    ),
    "banded": (
        {"central_privacy_mechanism": "banded_matrix_factorization", "central_delta": 0.01, "cohort_size": 1},
        8,
        "central_num_iterations: the noise of banded_matrix_factorization was scaled",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_another_run_is_refused_with_the_reason(
    tiny_store: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, rounds, message = REFUSED[case]

    def stop(done: fedflair.RoundDone) -> None:
        raise KeyboardInterrupt

    with pytest.raises(fedflair.Interrupted):
        fedflair.train(small_config(tiny_store, run=tmp_path / "run", **{**SMALL, **options}), callback=stop)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(["train", "--resume", "--run", str(tmp_path / "run"), "--central_num_iterations", str(rounds)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fedflair: ")]
    assert message in line
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_a_run_whose_patience_is_out_and_one_without_a_trace_of_its_rounds(
    short: Path, tiny_store: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_store, run=tmp_path / "run", early_stopping_patience=1, evaluation_frequency=1, **SMALL)
    # Of its first model on, none is better: nothing is learned.
    ended = train(config.changed(learning_rate=1e-12, central_num_iterations=6))
    assert read_summary(RunFolder(ended))["rounds"] < 6
    with pytest.raises(fedflair.ConfigError, match="by its early_stopping_patience, as it would with 9 rounds"):
        more(ended, 9)
    longer = more(copy(short, tmp_path / "longer"), 5)
    forged = json.loads((longer / "provenance.json").read_text())
    del forged["more_rounds"]
    (longer / "provenance.json").write_text(json.dumps(forged))
    (longer / "config.yaml").write_bytes((short / "config.yaml").read_bytes())
    with pytest.raises(fedflair.DataError, match="says nothing of more than 4 rounds, and the checkpoint has 5"):
        train(parse_train_config(["--resume", "--run", str(longer)]))


@pytest.mark.parametrize("value", [[], [4], [6, 5], "8", [True]])
def test_a_damaged_number_of_rounds_is_told_in_a_line(short: Path, tmp_path: Path, value: object) -> None:
    damaged = copy(short, tmp_path / "damaged")
    raw = json.loads((damaged / "provenance.json").read_text())
    (damaged / "provenance.json").write_text(json.dumps({**raw, "more_rounds": value}))
    with pytest.raises(fedflair.DataError, match=r"provenance\.json: damaged"):
        read_provenance(RunFolder(damaged))
