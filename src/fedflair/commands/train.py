"""``fedflair train``: simulated federated learning, as a file and the command line together describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fedflair.config.effects import refuse_without_effect
from fedflair.config.options import build_config, read_given, train_parser
from fedflair.config.parsing import as_usage_errors
from fedflair.config.train_config import TrainConfig
from fedflair.config.yaml_text import as_yaml
from fedflair.errors import UsageError
from fedflair.runs.configuration import config_to_resume
from fedflair.system.terminal import say

_FLAGS = {
    "print_config": "Print the resolved configuration as YAML, which --args_config reads, and train nothing.",
    "dry_run": "Say what would run, what it needs and promises, and about how long it takes; write nothing.",
    "quiet": "Say nothing but errors.",
}


def train(arguments: Sequence[str]) -> Path | None:
    """Parses, trains, and returns the run folder; None where only words were asked for."""
    config, flags = _read(arguments, say)
    if flags["print_config"]:
        say(as_yaml(config.as_dict()).rstrip("\n"))
        return None
    # What trains takes a second to import, which a mistyped option need not wait for.
    if flags["dry_run"]:
        from fedflair.training.dry_run import dry_run

        say(dry_run(config))
        return None
    from fedflair.training.train import train as run

    return run(config, ("fedflair", "train", *arguments), quiet=flags["quiet"])


def parser() -> ArgumentParser:
    """The parser of the command's words."""
    made = train_parser()
    group = made.add_argument_group("This command")
    for name, help_ in _FLAGS.items():
        group.add_argument(f"--{name}", action="store_true", help=help_)
    return made


def parse_train_config(arguments: Sequence[str], tell: Callable[[str], object] = lambda note: None) -> TrainConfig:
    """Reads ``--args_config FILE`` (a path or the name of a shipped configuration) and the options beside it.

    tell: gets what is to be said of options that another tool has, a line each.
    Raises UsageError, naming the option, where one is unknown, of the wrong type, impossible, or typed in vain.
    """
    return _read(arguments, tell)[0]


def _read(arguments: Sequence[str], tell: Callable[[str], object]) -> tuple[TrainConfig, dict[str, bool]]:
    """The configuration, and which of ``_FLAGS`` were given."""
    with as_usage_errors():
        given = read_given(parser(), arguments)
    flags = {name: bool(_taken(given.typed, given.options, name)) for name in _FLAGS}
    _check_flags(flags, resumed=bool(given.typed.get("resume")))
    if given.typed.get("resume"):
        if given.typed.get("run") is None:
            raise UsageError("resume: name the run's folder with --run")
        return config_to_resume(given.typed), flags
    with as_usage_errors():
        config = build_config(given.options, given.where)
        refuse_without_effect(given.typed, [config])
    if not flags["quiet"]:
        for note in given.notes:
            # What is printed for a file must not have other lines among it.
            (partial(say, stderr=True) if flags["print_config"] else tell)(note)
    return config, flags


def _taken(typed: dict[str, Any], options: dict[str, Any], name: str) -> Any:
    """Takes an option that is no training's out of what was given."""
    options.pop(name, None)
    return typed.pop(name, None)


def _check_flags(flags: dict[str, bool], *, resumed: bool) -> None:
    asked = [name for name, given in flags.items() if given]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]}: given together with --{asked[1]}; drop one of the two")
    if flags["dry_run"] and resumed:
        raise UsageError("dry_run: a run that goes on is what it was when it began; drop --resume to see that")
