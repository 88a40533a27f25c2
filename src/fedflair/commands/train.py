"""``fedflair train``: simulated federated learning, as a file and the command line together describe it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedflair.config.effects import refuse_without_effect
from fedflair.config.options import build_config, parse_given, read_options, train_parser
from fedflair.config.train_config import TrainConfig
from fedflair.runs.configuration import config_to_resume


def train(arguments: Sequence[str]) -> Path:
    """Parses, trains, and returns the run folder."""
    config = parse_train_config(arguments)
    # What trains takes a second to import, which a mistyped option need not wait for.
    from fedflair.training.train import train as run

    return run(config, ("fedflair", "train", *arguments))


def parse_train_config(arguments: Sequence[str]) -> TrainConfig:
    """Reads ``--args_config FILE`` (a path or the name of a shipped configuration) and the options beside it.

    Raises ConfigError, naming the option, where one is unknown, of the wrong type, impossible, or typed in vain.
    """
    given = parse_given(train_parser(), arguments)
    source = given.pop("args_config", None)
    if given.get("resume"):
        return config_to_resume(given)
    options = read_options(Path(source)) if source else {}
    config = build_config({**options, **given}, str(source or "command line"))
    refuse_without_effect(given, [config])
    return config
