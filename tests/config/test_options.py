"""YAML and the command line: who wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from fedflair.commands.train import parse_train_config
from fedflair.config.options import build_config, parse_given, read_options, train_parser
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError


def test_the_shipped_baseline_has_the_published_values() -> None:
    config = parse_train_config(["--args_config", "baseline"])
    assert (
        config.cohort.cohort_size,
        config.algorithm.central_num_iterations,
        config.central_privacy.noise_cohort_size,
    ) == (200, 5000, 5000)
    assert (config.server.learning_rate, config.server.central_lr_end, config.server.adaptivity_degree) == (
        0.1,
        0.02,
        0.01,
    )
    assert (config.server.adam_beta1, config.server.adam_beta2, config.local.local_learning_rate) == (0.9, 0.99, 0.01)
    assert (config.local.local_num_epochs, config.local.local_batch_size, config.data.max_num_user_images) == (
        2,
        16,
        512,
    )
    assert config.model.pretrained is True
    private = config.central_privacy
    assert (private.population, private.allow_large_delta, private.min_separation) == (10_000_000, True, 48)


@pytest.mark.parametrize(
    "order", [["--cohort_size=50", "--args_config", "{}"], ["--args_config", "{}", "--cohort_size", "50"]]
)
def test_the_command_line_wins_wherever_it_stands(tmp_path: Path, order: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("cohort_size: 10\nlearning_rate: 0.5\n")
    config = parse_train_config([part.format(path) for part in order])
    assert (config.cohort.cohort_size, config.server.learning_rate) == (50, 0.5)
    assert config.local.local_batch_size == TrainConfig().local.local_batch_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cohort_sise", "5"], "cohort_sise: unknown option; did you mean cohort_size"),
        (["--cohort_size", "many"], "cohort_size"),
        (["--cohort_size", "0"], "cohort_size: 0 is impossible; it must be at least 1"),
        (["--learning_rate", "nan"], "learning_rate"),
        (["--dataset", "cifar10"], "dataset"),
        (["--central_delta", "1.5"], "central_delta: 1.5 is impossible"),
        (["--image_size", "2"], "image_size: 2 is impossible"),
        (["--pretrained", "false", "--pretrained_weights", "x.pth"], "pretrained_weights: given together"),
        (
            ["--central_privacy_mechanism", "gaussian_moments_accountant", "--weighting", "num_examples"],
            "weighting: num_examples tells a user's number of images",
        ),
        (["--args_config", "no_such"], "no_such: no such file, nor a shipped configuration"),
    ],
)
def test_a_bad_option_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_train_config(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cohort_sise: 5\n", "cohort_sise: unknown option; did you mean cohort_size"),
        ("cohort_size: many\n", "cohort_size"),
        ("learning_rate: null\n", "learning_rate: null is no value of it; give one, or leave it out"),
        ("plugins:\n", "plugins: null is no value of it"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("a: [1\n", "not YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        parse_train_config(["--args_config", str(path)])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_switches_may_stand_alone() -> None:
    assert parse_train_config(["--pretrained", "--seed", "3"]).model.pretrained is True
    assert parse_train_config(["--pretrained", "false"]).model.pretrained is False


def test_a_file_takes_the_options_of_its_base_first(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("cohort_size: 10\nlearning_rate: 0.5\n")
    (tmp_path / "mine.yaml").write_text("base: below.yaml\nlearning_rate: 0.25\n")
    config = parse_train_config(["--args_config", str(tmp_path / "mine.yaml"), "--seed", "3"])
    assert (config.cohort.cohort_size, config.server.learning_rate, config.run.seed) == (10, 0.25, 3)
    (tmp_path / "private.yaml").write_text("base: baseline\ncentral_epsilon: 8.0\n")
    config = parse_train_config(["--args_config", str(tmp_path / "private.yaml")])
    assert (config.central_privacy.central_epsilon, config.central_privacy.noise_cohort_size) == (8.0, 5000)


def test_a_base_has_no_base_and_exists(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("base: baseline\n")
    with pytest.raises(ConfigError, match=r"one\.yaml: base: .*two\.yaml has a base itself; name baseline or write"):
        read_options(tmp_path / "one.yaml")
    (tmp_path / "three.yaml").write_text("base: no_such\n")
    with pytest.raises(ConfigError, match="no_such: no such file, nor a shipped configuration"):
        read_options(tmp_path / "three.yaml")


def test_a_tilde_is_the_home_folder_on_the_command_line_and_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("data_path: ~/store.hdf5\n")
    (tmp_path / "mine.yaml").write_text("base: ~/base.yaml\nrun: ~/runs/one\npretrained: false\n")
    config = parse_train_config(
        ["--args_config", "~/mine.yaml", "--pretrained_weights=~/w.pth", "--pretrained", "true"]
    )
    assert config.data.data_path == tmp_path / "store.hdf5"
    assert config.run.run == tmp_path / "runs" / "one"
    assert config.model.pretrained_weights == tmp_path / "w.pth"
    config = parse_train_config(["--data_path", "~/other.hdf5", "--run", "~nobody-of-that-name/run"])
    assert config.data.data_path == tmp_path / "other.hdf5"
    assert config.run.run == Path("~nobody-of-that-name/run")
    given = parse_given(sweep_parser(), ["--output", "~/sweep", "--sweep_config=~/s.yaml"])
    assert given == {"output": str(tmp_path / "sweep"), "sweep_config": str(tmp_path / "s.yaml")}


def sweep_parser() -> ArgumentParser:
    parser = train_parser("sweep")
    parser.add_argument("--output", type=str)
    parser.add_argument("--sweep_config", type=str)
    return parser


def test_values_alike_to_a_cache_keep_their_types() -> None:
    assert build_config({"mu": 1}, "here").algorithm.mu == 1.0
    assert build_config({"cohort_size": 1}, "here").cohort.cohort_size == 1
    with pytest.raises(ConfigError, match=r"here: .*cohort_size"):
        build_config({"cohort_size": True}, "here")
    assert build_config({"pretrained": True}, "here").model.pretrained is True
    with pytest.raises(ConfigError, match=r"here: .*pretrained"):
        build_config({"pretrained": 1}, "here")
    for value in ([1], {"a": 1}):
        with pytest.raises(ConfigError, match=r"here: .*cohort_size"):
            build_config({"cohort_size": value}, "here")
