"""A configuration from a file, a shipped name, and options beside it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from fedflair.config.effects import refuse_without_effect
from fedflair.config.options import build_config, read_translated, unknown_option
from fedflair.config.pfl import Translated, translated, with_defaults
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.system.terminal import one_line


def load_config(source: str | Path | None = None, /, **options: Any) -> TrainConfig:
    """The configuration that ``fedflair train --args_config SOURCE --option value`` has.

    source: a YAML file, or the name of a shipped configuration such as ``"baseline"``; None is the defaults.
    options: by their published names; they win over the file. None leaves one at its default where it has one of None.
    Raises ConfigError, naming the option, where one is unknown, of the wrong type, impossible, or given in vain.
    """
    if not isinstance(source, str | Path | None):
        raise ConfigError(f"args_config: {type(source).__name__} is no file; name a YAML file or a shipped one")
    below = Translated({}) if source is None else read_translated(Path(source))
    given, notes = dict(options), below.notes
    if (given.get("like") or below.options.get("like")) == "pfl":
        ours = translated(given)
        given, notes = ours.options, (*notes, *ours.notes)
    for name in given:
        if name not in NAMES:
            raise ConfigError(unknown_option(name))
    if given.get("resume"):
        raise ConfigError("resume: a run is gone on with by fedflair.resume(run), which has its configuration")
    whole = with_defaults(below.options, given)
    config = build_config(whole.options, "options" if source is None else str(source))
    refuse_without_effect(given, [config])
    for note in (*notes, *whole.notes):
        warnings.warn(one_line(note), UserWarning, stacklevel=2)
    return config
