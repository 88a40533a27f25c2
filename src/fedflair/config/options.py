"""From YAML and the command line to a ``TrainConfig``; the command line always wins."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.runs.folder import RunFolder, read_config

NAMES = tuple(field.name for field in dataclasses.fields(TrainConfig))
FREE_ON_RESUME = (
    "run",
    "resume",
    "num_threads",
    "cuda_graphs",
    "device",
    "workers",
    "ray_address",
    "cpus_per_worker",
    "gpus_per_worker",
    "worker_timeout",
    "wandb_project_id",
)


def train_command(arguments: Sequence[str]) -> Path:
    """``fedflair train``: parses, trains, and returns the run folder."""
    config = parse_train_config(arguments)
    from fedflair.training.train import train

    return train(config)


def parse_train_config(arguments: Sequence[str]) -> TrainConfig:
    """Reads ``--args_config FILE`` (a path or the name of a shipped configuration) and the options beside it.

    Raises ConfigError, naming the option, where one is unknown, of the wrong type or impossible.
    """
    given = parse_given(train_parser(), arguments)
    source = given.pop("args_config", None)
    if given.get("resume"):
        return _resumed(given)
    options = read_options(Path(source)) if source else {}
    return build_config({**options, **given}, str(source or "command line"))


def parse_given(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What the arguments say, without defaults. Raises ConfigError, naming the option, for what they cannot say."""
    try:
        given: dict[str, Any] = parser.parse_args(_spell_switches(arguments), defaults=False).as_dict()
    except ArgumentError as error:
        raise ConfigError(_with_suggestion(str(error))) from error
    return given


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, checked for unknown names; ``baseline`` means the shipped ``baseline.yaml``.

    ``base: NAME`` in the file takes the options of another one first: a shipped name, or a path from the file's folder.
    """
    path, options = _read_mapping(path)
    base = options.pop("base", None)
    if base is None:
        return options
    beside = path.parent / str(base)
    below_path, below = _read_mapping(beside if beside.is_file() else Path(str(base)))
    if "base" in below:
        raise ConfigError(f"{path}: base: {below_path} has a base itself; name {below['base']} or write its values out")
    return {**below, **options}


def _read_mapping(path: Path) -> tuple[Path, dict[str, Any]]:
    """Where a configuration was found, and what is written there: names of options, and ``base``."""
    if not path.is_file():
        shipped = (
            Path(str(resources.files("fedflair") / "config" / "presets")) / f"{path.name.removesuffix('.yaml')}.yaml"
        )
        if path.parent != Path() or not shipped.is_file():
            names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
            raise ConfigError(f"args_config: {path}: no such file, nor a shipped configuration (there are: {names})")
        path = shipped
    try:
        options = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"args_config: {path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(options, dict):
        raise ConfigError(f"args_config: {path}: must be a mapping of option names to values")
    for name in options:
        if name not in NAMES and name != "base":
            raise ConfigError(f"{path}: {unknown_option(str(name))}")
    return path, options


def config_of_run(folder: RunFolder) -> TrainConfig:
    """The configuration of the run in ``folder``, to be scored on whatever device this machine has."""
    options = {name: value for name, value in read_config(folder).items() if name in NAMES}
    return build_config({**options, "device": "auto", "wandb_project_id": None}, str(folder.config))


def train_parser(command: str = "train", purpose: str = "Train in simulated federated learning.") -> ArgumentParser:
    """A parser of every training option, for ``fedflair train`` or a command that trains."""
    parser = ArgumentParser(
        prog=f"fedflair {command}",
        description=f"{purpose} Options come from --args_config and the command line, which wins.",
        exit_on_error=False,
    )
    parser.add_argument("--args_config", type=str, help="YAML file, or the name of a shipped configuration.")
    parser.add_class_arguments(TrainConfig)
    return parser


@cache
def _cached_parser() -> ArgumentParser:
    """One parser for all configurations of a sweep: making one takes longer than using it."""
    return train_parser()


def build_config(options: Mapping[str, Any], where: str) -> TrainConfig:
    """The configuration with these options, typed and checked. Raises ConfigError, which says ``where`` they stand."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    try:
        values = _cached_parser().parse_object(plain).as_dict()
    except ArgumentError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
    return TrainConfig(**{name: values[name] for name in NAMES})


def _resumed(given: dict[str, Any]) -> TrainConfig:
    if given.get("run") is None:
        raise ConfigError("resume: name the run's folder with --run")
    folder = RunFolder(Path(given["run"]))
    options = {name: value for name, value in read_config(folder).items() if name in NAMES}
    config = build_config({**options, **given}, str(folder.config))
    check_same_run(config, folder)
    return config


def check_same_run(config: TrainConfig, folder: RunFolder) -> None:
    """Raises ConfigError, naming the option, where the run in ``folder`` cannot be continued as ``config``."""
    options = {name: value for name, value in read_config(folder).items() if name in NAMES}
    before = build_config(options, str(folder.config))
    for name in NAMES:
        if name not in FREE_ON_RESUME and getattr(config, name) != getattr(before, name):
            raise ConfigError(
                f"{name}: {getattr(config, name)} differs from {getattr(before, name)} of the run in {folder.path}; "
                "drop the option, or start a new run"
            )


def _spell_switches(arguments: Sequence[str]) -> list[str]:
    """Lets ``--resume`` and other yes/no options stand without a value."""
    switches = {f"--{f.name}" for f in dataclasses.fields(TrainConfig) if f.type == "bool"}
    spelled: list[str] = []
    for position, argument in enumerate(arguments):
        spelled.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.startswith("-"):
            spelled.append("true")
    return spelled


def _with_suggestion(message: str) -> str:
    message = " ".join(message.split())
    for word in message.split():
        name = word.strip("'\",.").split("=")[0]
        if name.startswith("--") and name[2:] not in NAMES:
            return f"{message}; {unknown_option(name[2:])}"
    return message


def unknown_option(name: str) -> str:
    """What to say of a name that is no option."""
    close = difflib.get_close_matches(name, NAMES, n=1)
    return f"{name}: unknown option" + (f"; did you mean {close[0]}?" if close else "; see fedflair train --help")
