"""What a dry run says is what the run then is; and it writes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fedflair.cli import run as run_command
from fedflair.commands.train import parse_train_config
from fedflair.config.options import PRESETS
from fedflair.errors import ConfigError, DataError
from fedflair.federated.setup import initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training import timing
from fedflair.training.dry_run import dry_run, work_of
from fedflair.training.train import train
from tests.privacy.conftest import accounting_cache, shared_cache
from tests.small_runs import command, small_config

__all__ = ["accounting_cache", "shared_cache"]

PRIVATE = {
    "model": "small_cnn",
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "central_epsilon": 8.0,
    "central_delta": 0.01,
    "noise_cohort_size": 50,
    "population": 90,
    "accountant": "rdp",
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SECONDS", 0.1)


def test_what_would_run_is_what_runs(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config(tiny_store, **PRIVATE, run=tmp_path / "run")
    words = command(config, "--dry_run")[3:]
    run_command(words)
    shown = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    told = dict(re.findall(r"^([a-z-]+(?: [a-z]+)?) {2,}(.*)$", shown, re.MULTILINE))
    assert told["users"] == "train 6 (24 images), val 2 (9 images), test 2 (9 images)"
    assert (
        told["rounds"] == "4 of 3 clients each (drawn by coins); val after every 2, and val and test of the best model"
    )
    # A client has 4 images in the mean, and each is in two epochs.
    assert told["image-steps"] == "24 images in the local steps of a round, 96 in all"
    assert told["run folder"] == f"{tmp_path}/run, which is not made: nothing is written"
    assert re.fullmatch(r"about .* GB of this process|about .* MB of this process", told["memory"])
    assert told["time"].startswith("about ")
    assert "Simulated deployment of 90 users: epsilon 8 at delta 0.01" in shown
    assert "This run itself, with cohorts of 3 of 6 and the noise scaled down to them: epsilon " in shown
    assert re.search(r"Noise on a round's mean update: [\d.]+ times as long as the clipping bound", shown)

    rows = read_rows(RunFolder(train(config)))
    setup = make_setup(config, noise_seed=0)
    size = 4 * initial_state(setup).parameters.numel()
    assert told["bytes"] == f"a client gets {size / 1e6:.3g} MB and sends {size / 1e6:.3g} MB in a round; " + (
        f"{2 * size * 3 * 4 / 1e6:.3g} MB in all"
    )
    # In private runs rows count no cohort.
    assert len(rows) == work_of(setup).rounds == 4
    assert sum("val/loss" in row for row in rows) == work_of(setup).evaluations == 2
    with pytest.raises(ConfigError, match="already holds a run"):
        dry_run(config)


def test_bytes_are_those_of_the_rows(tiny_store: Path, tmp_path: Path) -> None:
    options = {"model": "small_cnn", "compression": "quantize_8bit", "central_num_iterations": 1}
    config = small_config(tiny_store, run=tmp_path / "run", **options)
    shown = dry_run(config)
    (row,) = read_rows(RunFolder(train(config)))
    one, up = row["train/bytes_down"] / 3, row["train/bytes_up"] / 3
    everything = (row["train/bytes_down"] + row["train/bytes_up"]) / 1e6
    assert f"gets {one / 1e6:.3g} MB and sends {up / 1e3:.3g} KB in a round; {everything:.3g} MB in all" in shown
    assert row["train/num_examples"] / 3 > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"algorithm_name": "central", "central_batch_size": 8, "dataset": "flair"},
            ["4 of one step each", "8 images"],
        ),
        ({"trainable": "head", "local_augmentation": "none"}, ["for the features of 42 images"]),
        ({"algorithm_name": "scaffold"}, ["a client gets 3.13 MB and sends 3.13 MB"]),
    ],
)
def test_other_kinds_of_runs(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = dry_run(small_config(tiny_store, model="small_cnn", **options))
    assert [text for text in expected if text not in shown] == [], shown
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_estimated_of_workers_that_were_not_started(tiny_store: Path) -> None:
    pytest.importorskip("ray")
    config = small_config(tiny_store, model="small_cnn", workers=5, num_threads=1)
    told = dict(re.findall(r"^(memory|time) +(.*)$", dry_run(config), re.MULTILINE))
    assert told["time"].startswith(
        "not known of Ray's workers, which were not started; with 1 thread of this process about "
    )
    assert told["memory"].endswith(
        " if it trained itself; Ray's workers are processes of their own, and were not measured"
    )


def test_published_weights_are_not_fetched(tiny_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    shown = dry_run(small_config(tiny_store, pretrained=True))
    assert "fetched once when the run starts; not checked here" in shown
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_run_is_refused() -> None:
    with pytest.raises(DataError, match=r"absent\.hdf5: no such store"):
        dry_run(parse_train_config(["--args_config", "demo", "--data_path", "absent.hdf5"]))


@pytest.mark.parametrize("preset", [path.stem for path in sorted(PRESETS.glob("*.yaml"))])
def test_a_printed_configuration_loads_as_the_same(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--args_config", preset, "--seed", "3", "--run", str(tmp_path / "run")]
    run_command(["train", *words, "--print_config"])
    shown = capsys.readouterr()
    (tmp_path / "printed.yaml").write_text(shown.out)
    assert parse_train_config(["--args_config", str(tmp_path / "printed.yaml")]) == parse_train_config(words)
    assert yaml.safe_load(shown.out)["seed"] == 3


def test_pfls_meanings_are_printed_and_its_notes_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text("model_name: multi_label_cnn\nweight_by_samples: true\n")
    words = ["--args_config", str(tmp_path / "theirs.yaml"), "--like", "pfl"]
    run_command(["train", *words, "--print_config"])
    shown = capsys.readouterr()
    assert "weight_by_samples: ignored" in shown.err
    (tmp_path / "ours.yaml").write_text(shown.out)
    assert parse_train_config(["--args_config", str(tmp_path / "ours.yaml")]) == parse_train_config(words)


def test_a_quiet_run_says_nothing(tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"model": "small_cnn", "central_num_iterations": 1, "trainable": "head", "local_augmentation": "none"}
    config = small_config(tiny_store, run=tmp_path / "run", **options)
    run_command(command(config, "--quiet")[3:])
    assert capfd.readouterr() == ("", "")
    assert RunFolder(tmp_path / "run").summary.is_file()
