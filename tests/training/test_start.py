"""Runs that start from another model: its weights, what is kept of it, what privacy says of both, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fedflair
from fedflair.cli import main
from fedflair.commands.train import parse_train_config
from fedflair.evaluation.export import export_run
from fedflair.evaluation.opened import open_run
from fedflair.evaluation.start import open_start
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.accounting.shown import cell
from fedflair.report.data import read_run
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.provenance import read_provenance
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.conftest import write_tiny_store
from tests.small_runs import small_config, timeless_rows

SMALL: dict[str, Any] = {
    "model": "small_cnn",
    "num_threads": 1,
    "local_num_epochs": 1,
    "central_num_iterations": 2,
    "evaluation_frequency": 1,
}
PRIVATE: dict[str, Any] = {
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "central_delta": 0.01,
    "central_epsilon": 8.0,
}
Trained = dict[str, Path]


@pytest.fixture(scope="module")
def runs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with adapters; a private one; one that started from the first; the first one exported."""
    folder = tmp_path_factory.mktemp("start")
    first = train(small_config(tiny_store, run=folder / "first", trainable="lora", **SMALL))
    private = train(small_config(tiny_store, run=folder / "private", **SMALL, **PRIVATE))
    second = train(small_config(tiny_store, run=folder / "second", start_from=first, **SMALL))
    export_run(open_run(first, "best"), folder / "exported")
    return {"first": first, "private": private, "second": second, "exported": folder / "exported"}


def test_training_starts_from_the_whole_network(runs: Trained, tiny_store: Path, tmp_path: Path) -> None:
    config = small_config(tiny_store, start_from=runs["first"], **SMALL)
    setup = make_setup(config, 0, start=open_start(config))
    expected = fedflair.open_run(runs["first"]).model().network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in setup.worker.module.state_dict().items())
    # The head alone, on the other one's body; and the last model instead of the best.
    head = config.changed(trainable="head", start_from_checkpoint="last")
    part = make_setup(head, 0, start=open_start(head))
    last = fedflair.open_run(runs["first"]).model("last").network.state_dict()
    assert all(torch.equal(tensor, last[name]) for name, tensor in part.worker.module.state_dict().items())
    assert initial_state(part).parameters.numel() < initial_state(setup).parameters.numel()
    # An exported model is the same start.
    again = train(config.changed(run=tmp_path / "again", start_from=runs["exported"]))
    assert timeless_rows(again) == timeless_rows(runs["second"])


def test_it_is_kept_where_it_comes_from_and_needed_once(
    runs: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance, first = (read_provenance(RunFolder(runs[name])) for name in ("second", "first"))
    assert provenance is not None
    assert first is not None
    kept = dict(provenance.started_from or {})
    assert len(kept.pop("weights")) == 64
    assert kept == {
        "model": str(runs["first"]),
        "checkpoint": "best",
        "round": read_summary(RunFolder(runs["first"]))["best_round"],
        "store": first.store,
        "provenance": first.digest(),
        "private": False,
        "promised": None,
    }
    assert f"start_from: {runs['first']}\n" in (runs["second"] / "config.yaml").read_text()
    alone = Path(shutil.copytree(runs["second"], tmp_path / "alone"))
    config = (alone / "config.yaml").read_text()
    (alone / "config.yaml").write_text(config.replace(str(runs["first"]), "/nowhere"))
    resumed = train(parse_train_config(["--resume", "--resume_from", "previous", "--run", str(alone)]))
    assert timeless_rows(resumed) == timeless_rows(runs["second"])
    assert fedflair.evaluate(alone, "test").metrics == fedflair.evaluate(runs["second"], "test").metrics
    assert main(["train", "--resume", "--run", str(alone), "--start_from", str(runs["private"])]) == 1
    assert "start_from: " in capsys.readouterr().err


def test_a_private_run_says_what_its_epsilon_leaves_out(runs: Trained, tiny_store: Path, tmp_path: Path) -> None:
    def described(name: str, start: Path, **options: Any) -> dict[str, Any]:
        run = train(small_config(tiny_store, run=tmp_path / name, start_from=start, **{**SMALL, **PRIVATE, **options}))
        found = verify(run, use_cache=True)
        assert (found.problems, found.num_rounds) == ((), 2)
        # As the report has it before the run's end.
        (run / "summary.json").rename(run / "kept")
        told = dict(read_run(run, name).privacy or {})
        (run / "kept").rename(run / "summary.json")
        assert told == read_summary(RunFolder(run))["privacy"]
        return told

    own = read_summary(RunFolder(runs["private"]))["privacy"]
    plain = described("plain", runs["second"])
    assert plain["epsilon"] == own["epsilon"]
    assert plain["words"].endswith(
        f"It starts from the model of {runs['second']}, which was trained on the same users without any epsilon: this "
        "one covers what the run adds, and nothing of what that model tells of them."
    )
    assert cell(plain) == "8 §"
    added = described("added", runs["private"], central_epsilon=1.0)
    both = added["started_from"]
    assert (both["together_epsilon"], both["together_delta"]) == (added["epsilon"] + own["epsilon"], 0.02)
    assert "with epsilon 8 at delta 0.01: this one does not cover that run. Both together cost them " in added["words"]
    # A third one adds to both.
    third = described("third", tmp_path / "added", central_epsilon=1.0)
    assert third["started_from"]["together_epsilon"] == both["together_epsilon"] + third["epsilon"]
    assert third["started_from"]["together_delta"] == pytest.approx(0.03)
    # After a model that nothing covers, no sum does.
    uncovered = described("uncovered", tmp_path / "plain")
    assert uncovered["started_from"]["together_epsilon"] is None
    assert (
        "under a promise of its own: this one does not cover that run, and what both cost together is not computed"
        in (uncovered["words"])
    )


def test_with_other_users_it_says_so(runs: Trained, tmp_path: Path) -> None:
    other = write_tiny_store(tmp_path / "other.hdf5", user_id="{}-{}-other-{}")
    run = train(small_config(other, run=tmp_path / "run", start_from=runs["private"], **SMALL, **PRIVATE))
    told = read_summary(RunFolder(run))["privacy"]
    assert (
        "trained on another store: for whoever is in both, it covers what this run adds and no more." in told["words"]
    )
    assert (told["started_from"]["same_users"], cell(told)) == (False, "8")
    assert verify(run, use_cache=True).problems == ()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"label_subset": ("animal", "food")}, "start_from: RUN has 4 labels, and this run learns 2; choose the"),
    "other labels": ({"use_fine_grained_labels": True}, "start_from: RUN has 4 labels, and this run learns 5"),
    "network": (
        {"model": "multi_label_cnn", "model_type": "squeezenet1_1"},
        "start_from: RUN is small_cnn, and this run trains squeezenet1_1 (not pretrained: GroupNorm); give --model "
        "small_cnn --pretrained false",
    ),
    "nowhere": ({"start_from": Path("/nowhere")}, "start_from: /nowhere: no such run, nor an exported model"),
    "no model": ({"start_from": Path("/dev/null")}, "start_from: /dev/null: no such file; name a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_network_or_other_labels_are_refused(
    runs: Trained, tiny_store: Path, tmp_path: Path, case: str
) -> None:
    options, message = REFUSED[case]
    config = small_config(tiny_store, run=tmp_path / "run", **{**SMALL, "start_from": runs["first"], **options})
    with pytest.raises(fedflair.FedflairError) as raised:
        train(config)
    assert str(raised.value).startswith(message.replace("RUN", str(runs["first"])))
    assert not (tmp_path / "run").exists()


def test_options_that_cannot_be_together(runs: Trained, tiny_store: Path) -> None:
    with pytest.raises(
        fedflair.ConfigError, match="start_from_checkpoint: last says where to start; give --start_from"
    ):
        fedflair.load_config(start_from_checkpoint="last")
    with pytest.raises(fedflair.ConfigError, match="pretrained_weights: given together with start_from"):
        fedflair.load_config(start_from="runs/x", pretrained_weights="weights.pth")
    config = small_config(tiny_store, start_from=runs["exported"], start_from_checkpoint="last", **SMALL)
    with pytest.raises(fedflair.ConfigError, match=r"start_from_checkpoint: .* is one model; drop the option"):
        open_start(config)
