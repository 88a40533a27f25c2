"""Parsers of command lines: options by their whole names, help in plain words, and errors that say what to type.

jsonargparse types the values; what it and argparse say of a mistake is told here in our words, as UsageError.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from fedflair.config.allowed import allowed, either, metavar, word
from fedflair.errors import ConfigError, UsageError


class _Formatter(DefaultHelpFormatter):
    """Help that shows a default where there is one, and a word for a value instead of a type of Python's."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.help or ""
        if isinstance(action, argparse._HelpAction):
            return "Show this help and exit."
        facts = ["required"] if action.required and action.option_strings else []
        if has_default(action):
            facts.append(f"default: {word(action.default)}")
        return told + (f" ({', '.join(facts)})" if facts else "")

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return metavar(type_of(action))

    def _get_default_metavar_for_positional(self, action: argparse.Action) -> str:
        return action.dest


def make_parser(command: str, purpose: str | None, usage: str | None = None) -> ArgumentParser:
    """A parser of one command's words; ``parse`` reads them."""
    return ArgumentParser(
        prog=f"fedflair {command}",
        usage=usage,
        description=purpose,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        formatter_class=_Formatter,
    )


def type_of(action: argparse.Action) -> Any:
    """The type of an option's value: bool for one that stands alone."""
    if action.nargs == 0:
        return bool
    return getattr(action, "_typehint", None) or action.type or str


def has_default(action: argparse.Action) -> bool:
    """Whether an option is anything where it is not given; what stands alone is off, which goes without saying."""
    return action.option_strings != [] and action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, ())


def parse(parser: ArgumentParser, words: Sequence[str], *, defaults: bool = True) -> dict[str, Any]:
    """What the words say, by the options' names. Raises UsageError, naming the option and what would be right."""
    _refuse_unknown(parser, words)
    try:
        given: dict[str, Any] = parser.parse_args(list(words), defaults=defaults).as_dict()
    except ArgumentError as error:
        raise UsageError(_told(parser, words, " ".join(str(error).split()))) from error
    return given


@contextmanager
def as_usage_errors() -> Iterator[None]:
    """What is wrong with options before anything else is looked at is wrong usage, wherever they stand."""
    try:
        yield
    except UsageError:
        raise
    except ConfigError as error:
        raise UsageError(str(error)) from error


def unknown(name: str, known: Iterable[str], command: str) -> str:
    """What to say of a name that is no option: a name that begins with it, or one that is like it."""
    names = list(known)
    begun = [other for other in names if name and other.startswith(name)][:3]
    close = begun or difflib.get_close_matches(name, names, n=1)
    return f"{name}: unknown option; " + (
        f"did you mean {either(close)}?" if close else f"see fedflair {command} --help"
    )


def options_of(parser: ArgumentParser) -> list[argparse.Action]:
    """The options and positional words of a parser, in order, without --help."""
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _command(parser: ArgumentParser) -> str:
    return parser.prog.removeprefix("fedflair ")


def _refuse_unknown(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Before anything else, as a mistyped option is also one that is missing, or a stray value."""
    names = {name for action in parser._actions for name in action.option_strings}
    for given in words:
        if given == "--":
            return
        name = given.partition("=")[0]
        if name.startswith("--") and name not in names:
            known = (other[2:] for other in names if other.startswith("--"))
            raise UsageError(unknown(name[2:], sorted(known), _command(parser)))


def _told(parser: ArgumentParser, words: Sequence[str], message: str) -> str:
    """What argparse or jsonargparse says, in our words."""
    actions = {action.dest: action for action in parser._actions}
    if found := re.search(r'Parser key "(\w+)"', message):
        name = found[1]
        action = actions.get(name)
        return f"{name}: {_value(words, name, message)} is impossible; it must be {_must(action)}"
    if found := re.match(r"argument --([\w-]+): ignored explicit argument", message):
        return f"{found[1]}: stands alone; leave out what follows the ="
    if found := re.match(r"argument (?:-\w, )?(?:--)?(\w[\w-]*): expected", message):
        return f"{found[1]}: a value is missing; it must be {_must(actions.get(found[1]))}"
    if found := re.match(r"the following arguments are required: (.*)", message):
        return f"{_command(parser)}: {_missing(actions, found[1].split(', '))}"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return f"{_command(parser)}: {found[1]!r} belongs to no option; see fedflair {_command(parser)} --help"
    return f"{_command(parser)}: {message}"


def _must(action: argparse.Action | None) -> str:
    return "another one" if action is None else allowed(type_of(action))


def _missing(actions: dict[str, argparse.Action], names: Sequence[str]) -> str:
    flags = [actions[name].option_strings[-1] for name in names if name in actions and actions[name].option_strings]
    others = [name for name in names if name not in actions or not actions[name].option_strings]
    told = [f"name the {' and the '.join(others)}"] if others else []
    if flags:
        told.append(f"give {' and '.join(flags)}")
    return "; ".join(told)


def _value(words: Sequence[str], name: str, message: str) -> str:
    """What was typed for an option, the last one of several."""
    found = None
    for position, given in enumerate(words):
        option, equals, value = given.partition("=")
        if option == f"--{name}":
            found = value if equals else (*words, None)[position + 1]
    if found is None:
        told = re.search(r"(?:Got|Given) value: (.*)$", message)
        return told[1] if told else "what was given"
    return found
