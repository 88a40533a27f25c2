"""``fedflair train``: simulated federated learning, as a file and the command line together describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fedflair.config.effects import refuse_without_effect
from fedflair.config.options import build_config, read_given, train_parser
from fedflair.config.train_config import TrainConfig
from fedflair.runs.configuration import config_to_resume
from fedflair.system.terminal import say


def train(arguments: Sequence[str]) -> Path:
    """Parses, trains, and returns the run folder."""
    config = parse_train_config(arguments, say)
    # What trains takes a second to import, which a mistyped option need not wait for.
    from fedflair.training.train import train as run

    return run(config, ("fedflair", "train", *arguments))


def parse_train_config(arguments: Sequence[str], tell: Callable[[str], object] = lambda note: None) -> TrainConfig:
    """Reads ``--args_config FILE`` (a path or the name of a shipped configuration) and the options beside it.

    tell: gets what is to be said of options that another tool has, a line each.
    Raises ConfigError, naming the option, where one is unknown, of the wrong type, impossible, or typed in vain.
    """
    given = read_given(train_parser(), arguments)
    if given.typed.get("resume"):
        return config_to_resume(given.typed)
    config = build_config(given.options, given.where)
    refuse_without_effect(given.typed, [config])
    for note in given.notes:
        tell(note)
    return config
