"""Arguments of the interface's functions, held against their types by what reads the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from fedflair.config.allowed import allowed, word
from fedflair.errors import ConfigError
from fedflair.system.files import at_home


def checked(function: Callable[..., object], values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a function as their annotations have them: a path that is text becomes a ``Path``.

    Raises ConfigError, naming the argument, where one is of another type or no value of its.
    """
    found = {}
    for name, value in values.items():
        try:
            found[name] = at_home(_parser(function).parse_object({name: value}, defaults=False).as_dict()[name])
        except ArgumentError as error:
            must = allowed(_kinds(function)[name])
            raise ConfigError(f"{name}: {word(value)} is impossible; it must be {must}") from error
    return found


def path_of(name: str, value: object) -> Path:
    """The argument of that name as a path, with ``~`` the home folder. Raises ConfigError where it is none."""
    if not isinstance(value, str | Path):
        raise ConfigError(f"{name}: {type(value).__name__} is no path; give text or a pathlib.Path")
    path: Path = at_home(Path(value))
    return path


@cache
def _parser(function: Callable[..., object]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in _kinds(function).items():
        parser.add_argument(f"--{name}", type=kind)
    return parser


@cache
def _kinds(function: Callable[..., object]) -> dict[str, Any]:
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: one.annotation for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}
