"""``fedflair train``: simulated federated learning, as a file and the command line together describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
    asked = [name for name in _FLAGS if f"--{name}" in arguments]
    # What is printed for a file must not have other lines among it.
    tells: dict[str, Callable[[str], object]] = {"print_config": partial(say, stderr=True), "quiet": _say_nothing}
    config = parse_train_config(arguments, tells.get(asked[0], say) if asked else say)
    if "print_config" in asked:
        say(as_yaml(config.as_dict()).rstrip("\n"))
        return None
    # What trains takes a second to import, which a mistyped option need not wait for.
    if "dry_run" in asked:
        from fedflair.training.dry_run import dry_run

        say(dry_run(config))
        return None
    from fedflair.training.train import train as run

    return run(config, ("fedflair", "train", *arguments), quiet="quiet" in asked)


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
    with as_usage_errors():
        given = read_given(parser(), arguments)
    _check_flags([name for name in _FLAGS if given.typed.pop(name, False)], resumed=bool(given.typed.get("resume")))
    if given.typed.get("resume"):
        if given.typed.get("run") is None:
            raise UsageError("resume: name the run's folder with --run")
        return config_to_resume(given.typed)
    options = {name: value for name, value in given.options.items() if name not in _FLAGS}
    with as_usage_errors():
        config = build_config(options, given.where)
        refuse_without_effect(given.typed, [config])
    for note in given.notes:
        tell(note)
    return config


def _check_flags(asked: Sequence[str], *, resumed: bool) -> None:
    if len(asked) > 1:
        raise UsageError(f"{asked[0]}: given together with --{asked[1]}; drop one of the two")
    if "dry_run" in asked and resumed:
        raise UsageError("dry_run: a run that goes on is what it was when it began; drop --resume to see that")


def _say_nothing(note: str) -> None:
    """Where nobody listens."""
