"""pfl-research's files and command lines: what each name and value of its benchmark becomes here."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedflair.cli import run as run_command
from fedflair.commands.train import parse_train_config
from fedflair.config.effects import EFFECTIVE_WITH
from fedflair.config.options import build_config, read_given, read_options, read_translated, train_parser
from fedflair.config.pfl import DEFAULTS, OPTIONS, VALUES, Ignored, Refused, Renamed, translated
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.runs.configuration import check_same_run
from fedflair.runs.folder import RunFolder, read_config, read_rows
from fedflair.runs.provenance import plain_options, read_provenance
from fedflair.sweep.plan import plan_sweep, sweep_spec
from fedflair.training.train import train
from tests.small_runs import small_config

PAGE = Path(__file__).parents[2] / "docs" / "reproducing.md"
# What the published baseline.yaml of pfl-research says, as its script reads it.
BASELINE: dict[str, Any] = {
    "data_path": "./data/flair/flair_federated.hdf5",
    "dataset": "flair",
    "model_name": "multi_label_cnn",
    "model_type": "resnet18",
    "pretrained": True,
    "add_all_arguments": True,
    "algorithm_name": "fedavg",
    "mu": 0.01,
    "adafedprox_metric_name": "Central val | macro loss",
    "adafedprox_adapt_frequency": 20,
    "scaffold_population": 41131,
    "central_optimizer": "adam",
    "learning_rate": 0.1,
    "cohort_size": 200,
    "val_cohort_size": 0,
    "max_num_user_images": 512,
    "central_num_iterations": 5000,
    "evaluation_frequency": 20,
    "central_eval_batch_size": 512,
    "local_batch_size": 16,
    "local_num_epochs": 2,
    "local_learning_rate": 0.01,
    "mean_datapoints_per_user": 50,
    "datapoints_per_user_distribution": "constant",
    "central_privacy_mechanism": "none",
    "central_order": 2,
    "central_epsilon": 2.0,
    "central_privacy_clipping_bound": 0.1,
    "noise_cohort_size": 5000,
}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(BASELINE))
    return path


def test_its_baseline_loads_as_it_stands(theirs: Path) -> None:
    config, ours = parse_train_config(["--args_config", str(theirs)]), parse_train_config(["--args_config", "baseline"])
    differing = {name for name in NAMES if config.option(name) != ours.option(name)}
    # Its population and separation are not in the file, but in its script.
    assert differing == {
        "central_order",
        "population",
        "allow_large_delta",
        "min_separation",
        "adafedprox_metric_name",
        "adafedprox_adapt_frequency",
    }


@pytest.mark.parametrize("dataset", ["flair", "flair_iid"])
def test_like_pfl_it_is_the_published_benchmark(theirs: Path, dataset: str) -> None:
    config = parse_train_config(["--args_config", str(theirs), "--like", "pfl", "--dataset", dataset])
    ours = parse_train_config(["--args_config", "baseline", "--dataset", dataset])
    assert config == ours.changed(
        like="pfl",
        central_order=2,
        scaffold_option=1,
        adafedprox_metric_name="val/loss",
        adafedprox_adapt_frequency=20,
    )


def test_each_ignored_option_says_why_in_a_line(theirs: Path) -> None:
    with theirs.open("a") as file:
        file.write("dataloader_num_workers: 4\nsave_model_path: ./checkpoints\n")
    notes = read_given(train_parser(), ["--args_config", str(theirs), "--like=pfl", "--weight_by_samples", "no"]).notes
    assert [note.split(":")[0] for note in notes] == [
        "add_all_arguments",
        "scaffold_population",
        "dataloader_num_workers",
        "save_model_path",
        "weight_by_samples",
    ]
    assert all(": ignored: " in note and "\n" not in note for note in notes)
    (last,) = [
        note for note in read_given(train_parser(), ["--args_config", str(theirs)]).notes if ": ignored: " not in note
    ]
    assert last == f"{theirs}: of pfl-research; its names are taken here, with --like pfl its defaults and meanings too"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("population: 1e7", "population", 10_000_000),
        ("population: 1.0e+7", "population", 10_000_000),
        ("cohort_size: '200'", "cohort_size", 200),
        ("seed: 123456789012345678901234567890", "seed", 123456789012345678901234567890),
        ("central_delta: 1e-6", "central_delta", 1e-6),
        ("mean_datapoints_per_user: 50.0", "mean_datapoints_per_user", 50),
        (
            "mean_datapoints_per_user: 7.5\ndatapoints_per_user_distribution: poisson",
            "mean_datapoints_per_user",
            7.5,
        ),
        ("local_batch_size: none", "local_batch_size", None),
        ("local_batch_size: null", "local_batch_size", None),
        ("local_max_grad_norm: none", "local_max_grad_norm", 10.0),
        ("central_order: inf", "central_order", math.inf),
        ("central_order: .inf", "central_order", math.inf),
        ("wandb_project_id: None", "wandb_project_id", None),
        ("central_privacy_mechanism: none", "central_privacy_mechanism", "none"),
        ("pretrained: 'yes'", "pretrained", True),
        ("dataset: flair_pytorch", "dataset", "flair"),
        ("model_name: small_cnn", "model", "small_cnn"),
        ("weight_decay: 0.25", "central_weight_decay", 0.25),
        ("scaffold_use_gradient_as_control_variate: true", "scaffold_option", 1),
        ("scaffold_use_gradient_as_control_variate: 'false'", "scaffold_option", 2),
        ("scaffold_states_dir: ./states", "scaffold_states", "disk"),
        ("scaffold_states_dir: none", "scaffold_states", "memory"),
        ("adafedprox_decrease_mu_after_consecutive_improvements: 3", "adafedprox_decrease_after", 3),
        ("adafedprox_metric_name: Central val | micro loss", "adafedprox_metric_name", "val/loss"),
        ("adafedprox_metric_name: Central val | micro recall", "adafedprox_metric_name", "val/micro_recall"),
    ],
)
def test_values_are_what_they_mean_there(tmp_path: Path, text: str, name: str, value: Any) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(f"{text}\n")
    found = build_config(read_options(path), "here").option(name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, int | float)
    # And on the command line, as its parser has them.
    words = [
        word for line in text.splitlines() for word in (f"--{line.split(': ')[0]}", line.split(": ")[1].strip("'"))
    ]
    options = read_given(train_parser(), ["--like", "pfl", *words]).options
    assert build_config(options, "here").option(name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("restore_model_path: ./old", "restore_model_path: fedflair goes on from checkpoints of its own"),
        ("local_privacy_mechanism: privunit", "local_privacy_mechanism: fedflair has no privunit; use gaussian"),
        ("cohort_sampling: with_replacement", "cohort_sampling: a user drawn twice would count twice in a cohort"),
        ("cohort_sampling: random", "which no accountant here covers; use fixed or poisson"),
        ("adafedprox_metric_name: Central val | macro AP", "adafedprox_metric_name: macro AP leaves out labels"),
        ("model_name: simple_cnn", "model: 'simple_cnn' is unknown"),
        ("model_name: small_cnn\nmodel: small_cnn", "model_name: given together with model"),
        ("cohort_size: many", "cohort_size"),
        ("cohort_size: 7.5", "cohort_size"),
        ("cohort_size: inf", "cohort_size"),
        ("cohort_size: 1e999999999", "cohort_size"),
        ("mean_datapoints_per_user: 7.5", "mean_datapoints_per_user: 7.5 is impossible; it must be a whole number"),
        ("mean_datapoints_per_user: .inf", "mean_datapoints_per_user: inf is impossible"),
        ("scaffold_use_gradient_as_control_variate: maybe", "scaffold_option"),
        ("scaffold_populatian: 3", "scaffold_populatian: unknown option"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError) as caught:
        parse_train_config(["--args_config", str(path)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--algorithm_name central --central_batch_size 8", "like: pfl has no centralised training"),
        ("--algorithm_name adafedprox --mu 0.5", "mu: 0.5 with like pfl, whose adafedprox starts from 0"),
        ("--algorithm_name scaffold --dataset flair_iid", "there is no state of one to keep"),
        (
            "--dataset flair_iid --central_privacy_mechanism gaussian_moments_accountant",
            "like: pfl draws the artificial users of flair_iid anew in each round, so that there is nobody",
        ),
        ("--dataset flair_iid --local_privacy_mechanism laplace", "there is nobody whom an epsilon could be promised"),
    ],
)
def test_what_like_pfl_cannot_mean_is_refused(line: str, message: str) -> None:
    words = shlex.split(line)
    parse_train_config(words)
    with pytest.raises(ConfigError) as caught:
        parse_train_config([*words, "--like", "pfl"])
    assert message in str(caught.value)


def test_its_defaults_are_below_everything_else(tmp_path: Path) -> None:
    config = parse_train_config(["--like", "pfl"])
    assert {name: config.option(name) for name in DEFAULTS} == dict(DEFAULTS)
    assert config.algorithm.mu == TrainConfig().algorithm.mu
    adapting = ["--algorithm_name", "adafedprox", "--like", "pfl", "--evaluation_frequency", "20"]
    assert parse_train_config(adapting).algorithm.mu == 0.0
    path = tmp_path / "mine.yaml"
    path.write_text("like: pfl\npopulation: 3\nscaffold_option: 2\nmu: 0.01\nalgorithm_name: adafedprox\n")
    config = parse_train_config(["--args_config", str(path), "--model_name", "small_cnn"])
    assert (config.central_privacy.population, config.algorithm.scaffold_option) == (3, 2)
    assert (config.algorithm.mu, config.model.model) == (0.0, "small_cnn")
    # Its order of a norm is for norm_clipping_only; laplace's own is 1.
    path.write_text("like: pfl\ncentral_order: 2\ncentral_privacy_mechanism: laplace\n")
    given = read_given(train_parser(), ["--args_config", str(path)])
    assert "central_order" not in given.options
    assert [note.split(":")[0] for note in given.notes] == ["central_order"]


def test_without_like_its_names_are_no_words_of_the_command_line() -> None:
    with pytest.raises(
        ConfigError, match=r"model_name: an option of pfl-research's; fedflair train takes it with --like pfl$"
    ):
        parse_train_config(["--model_name", "multi_label_cnn"])
    with pytest.raises(ConfigError, match="like"):
        parse_train_config(["--like", "tff"])


def test_a_sweep_reads_its_files_too(theirs: Path) -> None:
    trials = plan_sweep(sweep_spec({"args_config": str(theirs), "grid": ["like=null,pfl"], "seeds": "1"}))
    assert [trial.config.central_privacy.population for trial in trials] == [None, 10_000_000]


def test_the_tables_name_options_that_there_are() -> None:
    for entry in OPTIONS.values():
        assert not isinstance(entry, Renamed) or entry.name in NAMES
    assert set(VALUES) | set(DEFAULTS) <= set(NAMES)
    assert not set(OPTIONS) & set(NAMES)
    assert TrainConfig.of(**DEFAULTS)
    assert "like" not in EFFECTIVE_WITH
    assert translated({}).options == {}
    kinds = {type(entry) for entry in OPTIONS.values()}
    assert kinds == {Renamed, Ignored, Refused}


def test_the_page_lists_every_name_and_every_default() -> None:
    page = PAGE.read_text()
    assert [name for name in (*OPTIONS, *DEFAULTS, *VALUES["dataset"]) if f"`{name}`" not in page] == []


def test_a_base_of_pfl_is_translated_too(theirs: Path) -> None:
    path = theirs.with_name("mine.yaml")
    path.write_text("base: theirs.yaml\nweight_decay: 0.5\n")
    read = read_translated(path)
    assert (read.options["central_weight_decay"], read.options["model"], read.foreign) == (0.5, "multi_label_cnn", True)
    assert len(read.notes) == 2


def test_a_run_is_held_to_what_it_was_like(tiny_store: Path, tmp_path: Path) -> None:
    """Numbers follow from it: it is in the provenance, and no run goes on otherwise."""
    config = small_config(tiny_store, run=tmp_path / "run", model="small_cnn", like="pfl", central_num_iterations=1)
    folder = RunFolder(train(config))
    provenance = read_provenance(folder)
    assert provenance is not None
    assert provenance.options["like"] == read_config(folder)["like"] == plain_options(config)["like"] == "pfl"
    with pytest.raises(ConfigError, match="like: None differs from pfl of the run"):
        check_same_run(config.changed(like=None, resume=True), folder)


def test_all_of_it_is_said_before_round_1(
    theirs: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (
        f"--data_path {tiny_store} --model_name small_cnn --pretrained no --image_size 32 --cohort_size 3 --device cpu"
    )
    rounds = f"--central_num_iterations 1e0 --evaluation_frequency 1.0 --num_threads 1 --run {tmp_path / 'run'}"
    private = "--like pfl --central_privacy_mechanism gaussian_moments_accountant"
    run_command(["train", "--args_config", str(theirs), *shlex.split(f"{private} {small} {rounds}")])
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    before = [lines.index("add_all_arguments: ignored: every option is always there")]
    for beginning in (
        "scaffold_population: ignored: ",
        "like pfl: one order of a user's images for all epochs of a round, ",
        "Simulated deployment of 10,000,000 users: epsilon 2 at delta 1e-05 ",
        "Noise on a round's mean update: ",
        "run folder: ",
    ):
        (line,) = [number for number, text in enumerate(lines) if text.startswith(beginning)]
        before.append(line)
    assert before == sorted(before)
    (row,) = read_rows(RunFolder(tmp_path / "run"))
    assert {"val/macro_ap", "val_pfl/macro_ap", "val_pfl/micro_ap"} <= row.keys()
