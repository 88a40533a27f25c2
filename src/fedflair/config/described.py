"""Every option of a parser as people read of it: its name, what it may be, what it is if not given, what it means."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from jsonargparse import ArgumentParser

from fedflair.config.allowed import allowed, either, word
from fedflair.config.names import OWN_NAMES
from fedflair.config.parsing import has_default, type_of
from fedflair.config.train_config import GROUP_OF, GROUPS
from fedflair.errors import ConfigError

# The heading of what stands under none.
GENERAL = "General"


@dataclass(frozen=True)
class Described:
    """One option. name: as it is typed, without dashes where it stands alone among the words.

    default: what it is if not given; empty where it is nothing then. required: there is no going without.
    """

    name: str
    allowed: str
    default: str
    meaning: str
    required: bool


def described(parser: ArgumentParser) -> dict[str, list[Described]]:
    """The options of a parser, by the heading that its help shows them under."""
    found = {}
    for heading, actions in _groups(parser):
        # Of another command's own, an option of the same name may be anything else.
        bounds = {} if heading == GENERAL else _bounds()
        if actions:
            found[heading] = [_described(action, bounds) for action in actions]
    return found


def _groups(parser: ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    general: list[argparse.Action] = []
    others = []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        # argparse's own two groups.
        if group.title in ("positional arguments", "options", "optional arguments"):
            general += actions
        else:
            others.append((str(group.title), actions))
    return iter([(GENERAL, general), *others])


def _described(action: argparse.Action, bounds: Mapping[str, str]) -> Described:
    stands_alone = action.option_strings and action.nargs == 0
    return Described(
        name=action.option_strings[-1] if action.option_strings else action.dest,
        allowed="stands alone" if stands_alone else _allowed(action, bounds),
        default=word(action.default) if has_default(action) else "",
        meaning=" ".join((action.help or "").split()),
        required=bool(action.required) and action.nargs != "*",
    )


def _allowed(action: argparse.Action, bounds: Mapping[str, str]) -> str:
    if action.dest in OWN_NAMES:
        return f"{either(OWN_NAMES[action.dest])}; or a plugin's"
    bound = f", {bounds[action.dest]}" if action.dest in bounds else ""
    told, null = allowed(type_of(action)), ", or null"
    return told.removesuffix(null) + bound + null if told.endswith(null) else told + bound


@cache
def _bounds() -> Mapping[str, str]:
    """An option of a training -> what its check says a number must be; as checked of -1, which hardly any may be."""
    found = {}
    for name, group in GROUP_OF.items():
        try:
            GROUPS[group](**{name: -1})
        except ConfigError as error:
            if told := re.fullmatch(rf"{name}: -1 is impossible; it must be (?:a finite number )?(.*)", str(error)):
                found[name] = told[1].removeprefix("of ")
        except (TypeError, AttributeError):
            # No number.
            continue
    return found
