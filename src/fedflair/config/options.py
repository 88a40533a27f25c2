"""From YAML and the command line to a ``TrainConfig``; the command line always wins."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from fedflair.config.allowed import allowed, word
from fedflair.config.parsing import make_parser, parse, unknown
from fedflair.config.pfl import TYPES, Translated, is_foreign, translated, translated_words, with_defaults
from fedflair.config.train_config import GROUPS, NAMES, TrainConfig
from fedflair.config.yaml_text import read_yaml
from fedflair.errors import ConfigError, UsageError
from fedflair.system.files import at_home

# Options of commands that are files or folders, beside those of a training, which are typed as paths.
_FILES = ("args_config", "sweep_config", "output")

PRESETS = Path(str(resources.files(__package__) / "presets"))


def parse_given(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What the arguments say, without defaults. Raises UsageError, naming the option, for what they cannot say."""
    words = _spell_switches(arguments)
    for given in words:
        name = given.partition("=")[0].removeprefix("--")
        if given.startswith("--") and is_foreign(name):
            raise UsageError(unknown_option(name))
    given_options = parse(parser, words, defaults=False)
    return {
        name: str(at_home(Path(value))) if name in _FILES else at_home(value) for name, value in given_options.items()
    }


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, checked for unknown names; ``baseline`` means the shipped ``baseline.yaml``.

    ``base: NAME`` in the file takes the options of another one first: a shipped name, or a path from the file's folder.
    pfl-research's names and values are taken for ours.
    """
    return read_translated(path).options


def read_translated(path: Path) -> Translated:
    """As ``read_options``, with what is to be said of options that are pfl-research's."""
    path, read = _read_mapping(at_home(path))
    options = read.options
    base = options.pop("base", None)
    if base is None:
        return read
    named = at_home(Path(str(base)))
    beside = path.parent / named
    below_path, below = _read_mapping(beside if beside.is_file() else named)
    if "base" in below.options:
        other = below.options["base"]
        raise ConfigError(f"{path}: base: {below_path} has a base itself; name {other} or write its values out")
    return Translated({**below.options, **options}, below.notes + read.notes, below.foreign or read.foreign)


@dataclass(frozen=True)
class Given:
    """What a command was given. typed: beside a file, without defaults. source: the file; None where there is none.

    options: of the file and what was typed, which wins. notes: what is to be said of them, a line each.
    """

    typed: dict[str, Any]
    source: str | None
    options: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def where(self) -> str:
        """Where the options stand, for messages."""
        return self.source or "command line"


def read_given(parser: ArgumentParser, arguments: Sequence[str]) -> Given:
    """Arguments and the file that they name with ``--args_config``. Raises ConfigError, naming the option.

    Where one of the two says ``like: pfl``, the arguments may be pfl-research's, and its defaults lie below both.
    """
    source = _last_value(arguments, "args_config")
    below = Translated({}) if source is None else read_translated(Path(source))
    words, notes = list(arguments), below.notes
    if (_last_value(arguments, "like") or below.options.get("like")) == "pfl":
        words, more = translated_words(arguments)
        notes += more
    typed = parse_given(parser, words)
    typed.pop("args_config", None)
    whole = with_defaults(below.options, typed)
    if below.foreign and whole.options.get("like") is None:
        notes += (
            f"{source}: of pfl-research; its names are taken here, with --like pfl its defaults and meanings too",
        )
    return Given(typed, source, whole.options, notes + whole.notes)


def _last_value(arguments: Sequence[str], option: str) -> str | None:
    """What is typed after ``--option``, or after an equals sign; the last of several, as with a parser."""
    found = None
    for position, given in enumerate(arguments):
        name, equals, value = given.partition("=")
        if name == f"--{option}":
            found = value if equals else (*arguments, None)[position + 1]
    return found


def _read_mapping(path: Path) -> tuple[Path, Translated]:
    """Where a configuration was found, and what is written there: names of options, and ``base``."""
    if not path.is_file():
        shipped = PRESETS / f"{path.name.removesuffix('.yaml')}.yaml"
        if path.parent != Path() or not shipped.is_file():
            names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
            raise ConfigError(f"args_config: {path}: no such file, nor a shipped configuration (there are: {names})")
        path = shipped
    try:
        options = read_yaml(path)
    except ValueError as error:
        raise ConfigError(f"args_config: {path}: not YAML ({error})") from error
    if not isinstance(options, dict):
        raise ConfigError(f"args_config: {path}: must be a mapping of option names to values")
    try:
        read = translated(options)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in read.options:
        if name not in NAMES and name != "base":
            raise ConfigError(f"{path}: {unknown_option(str(name))}")
    return path, read


def train_parser(
    command: str = "train",
    purpose: str = "Train in simulated federated learning.",
    words: str = "[--args_config FILE]",
) -> ArgumentParser:
    """A parser of every training option, for ``fedflair train`` or a command that trains.

    words: what stands before the options in its usage.
    """
    parser = make_parser(
        command,
        f"{purpose} Options come from --args_config and the command line, which wins.",
        f"fedflair {command} {words} [--option value ...]",
    )
    parser.add_argument("--args_config", type=str, help="YAML file, or the name of a shipped configuration.")
    for options in GROUPS.values():
        parser.add_class_arguments(options)
    return parser


@cache
def _cached_parser() -> ArgumentParser:
    """One parser for all configurations of a sweep: making one takes longer than using it."""
    return train_parser()


@cache
def _kinds() -> dict[str, Any]:
    """The type of each option's value."""
    return {name: kind for options in GROUPS.values() for name, kind in get_type_hints(options).items()}


@lru_cache(maxsize=10_000)
def _typed(name: str, value: Any, written: str) -> Any:
    """An option's value as its group has it. written: how it is written, as 1 and True are the same to a cache."""
    return _cached_parser().parse_object({name: value}, defaults=False).as_dict()[name]


def build_config(options: Mapping[str, Any], where: str) -> TrainConfig:
    """The configuration with these options, typed and checked. Raises ConfigError, which says ``where`` they stand."""
    values = {}
    for name, value in options.items():
        if value is None and "None" not in TYPES.get(name, "None"):
            # Which the parser lets pass.
            raise ConfigError(f"{where}: {name}: null is no value of it; give one, or leave it out")
        plain = str(value) if isinstance(value, Path) else value
        if name == "plugins" and isinstance(plain, str):
            plain = [plain]
        # Option by option, since a sweep's hundreds of configurations have most of their values in common.
        try:
            typed = (_typed if isinstance(plain, Hashable) else _typed.__wrapped__)(name, plain, repr(plain))
        except ArgumentError as error:
            must = allowed(_kinds()[name])
            raise ConfigError(f"{where}: {name}: {word(value)} is impossible; it must be {must}") from error
        values[name] = at_home(typed)
    return TrainConfig.of(**values)


def _spell_switches(arguments: Sequence[str]) -> list[str]:
    """Lets ``--resume`` and other yes/no options stand without a value."""
    switches = {
        f"--{field.name}"
        for options in GROUPS.values()
        for field in dataclasses.fields(options)
        if field.type == "bool"
    }
    spelled: list[str] = []
    arguments = _joined_plugins(arguments)
    for position, argument in enumerate(arguments):
        spelled.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.startswith("-"):
            spelled.append("true")
    return spelled


def _joined_plugins(arguments: Sequence[str]) -> list[str]:
    """``--plugins A --plugins B`` as one option with a list, which is what the parser takes."""
    kept: list[str] = []
    named: list[str] = []
    words = iter(arguments)
    for given in words:
        option, equals, value = given.partition("=")
        if option != "--plugins":
            kept.append(given)
        elif (value := value if equals else next(words, "")).startswith("["):
            named += [name.strip(" '\"") for name in value.strip("[]").split(",") if name.strip()]
        else:
            named.append(value)
    return [*kept, f"--plugins={json.dumps(named)}"] if named else kept


def unknown_option(name: str) -> str:
    """What to say of a name that is no option."""
    if is_foreign(name):
        return f"{name}: an option of pfl-research's; fedflair train takes it with --like pfl"
    return unknown(name, NAMES, "train")
