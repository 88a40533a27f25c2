"""A page for each command, from the parser that reads the command's words: no default is written twice."""

from __future__ import annotations

import html
import re
from argparse import SUPPRESS, Action
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from jsonargparse import ArgumentParser

from fedflair import cli

SHARED_WITH = "train"


class _Parsed(BaseException):
    """Thrown where a command is about to parse its words, past whatever would make a message of it."""


def parser_of(name: str) -> ArgumentParser:
    """The parser that ``fedflair NAME`` makes, taken from it as it starts to parse."""
    found: list[ArgumentParser] = []

    def parse(parser: ArgumentParser, *_: object, **__: object) -> None:
        found.append(parser)
        raise _Parsed

    with patch.object(ArgumentParser, "parse_args", parse):
        try:
            cli.run([name])
        except _Parsed:
            return found[0]
    raise LookupError(f"fedflair {name}: parses nothing")


def overview() -> str:
    """All commands with what they do, each leading to its page."""
    rows = [f"| [`fedflair {name}`](commands/{name}.md) | {purpose} |" for name, purpose in cli.COMMANDS.items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def page(name: str) -> str:
    """The page of a command: purpose, usage, and every option with its values, default and meaning."""
    parser = parser_of(name)
    groups = _groups(parser)
    lines = [f"# fedflair {name}", "", _text(parser.description), "", "```text", _usage(name, groups), "```"]
    own = [group for group in groups if _key(group) not in _of_training(name)]
    for title, actions in own:
        lines += ["", f"## {'Options' if title == 'options' else _text(title[0].upper() + title[1:])}", ""]
        lines += [line for action in actions for line in _entry(action)]
    if len(own) < len(groups):
        lines += [
            "",
            "## Options of the trainings",
            "",
            f"All [options of `fedflair train`]({SHARED_WITH}.md) as well.",
        ]
    return "\n".join(lines) + "\n"


def _of_training(name: str) -> set[tuple[str, ...]]:
    """The groups of ``fedflair train``'s options, which another command that has them whole refers to."""
    if name == SHARED_WITH:
        return set()
    return {_key(group) for group in _groups(parser_of(SHARED_WITH)) if group[0] != "options"}


def _key(group: tuple[str, list[Action]]) -> tuple[str, ...]:
    title, actions = group
    return (title, *(action.dest for action in actions))


def _groups(parser: ArgumentParser) -> list[tuple[str, list[Action]]]:
    """(title, its options), in the order of ``--help``."""
    groups = [
        (group.title or "options", [action for action in group._group_actions if not _is_silent(action)])
        for group in parser._action_groups
    ]
    return [(title, actions) for title, actions in groups if actions]


def _is_silent(action: Action) -> bool:
    return action.help == SUPPRESS or "--help" in action.option_strings


def _usage(name: str, groups: list[tuple[str, list[Action]]]) -> str:
    actions = [action for _, members in groups for action in members]
    words = [_word(action) for action in actions if not action.option_strings]
    words += [f"{action.option_strings[0]} {_placeholder(action)}" for action in actions if _is_required(action)]
    return " ".join(["fedflair", name, *words, "[--option value ...]"])


def _is_required(action: Action) -> bool:
    return bool(action.option_strings) and action.required


def _word(action: Action) -> str:
    upper = action.dest.upper()
    return f"[{upper} ...]" if action.nargs == "*" else upper


def _placeholder(action: Action) -> str:
    return "|".join(map(str, _choices(action))) or action.dest.upper()


def _entry(action: Action) -> list[str]:
    """A definition: the option and what it takes, then what it means."""
    name = action.option_strings[0] if action.option_strings else _word(action)
    facts = [f"`{name}`", *_facts(action)]
    anchor = f'<span id="{action.dest}"></span>' if action.option_strings else ""
    return [anchor + " · ".join(facts), f":   {_text(action.help) or '-'}", ""]


def _facts(action: Action) -> list[str]:
    choices = _choices(action)
    if choices:
        taken = "one of " + ", ".join(f"`{choice}`" for choice in choices)
    elif _is_switch(action):
        taken = "on if given"
    else:
        taken = _type(action)
    facts = [taken] if taken else []
    if _is_required(action):
        facts.append("**required**")
    elif action.option_strings and not _is_switch(action):
        facts.append(f"default `{_value(action.default)}`" if action.default is not None else "no default")
    return facts


def _is_switch(action: Action) -> bool:
    return action.nargs == 0


def _choices(action: Action) -> list[str]:
    hint = getattr(action, "_typehint", None)
    if hint is bool:
        return ["true", "false"]
    members = [member for part in (hint, *get_args(hint)) if _is_literal(part) for member in get_args(part)]
    return [str(member) for member in members or action.choices or ()]


def _is_literal(hint: Any) -> bool:
    return str(hint).startswith("typing.Literal")


WORDS = {int: "whole number", float: "number", str: "text", Path: "file or folder"}


def _type(action: Action) -> str:
    hint = getattr(action, "_typehint", None) or action.type
    for kind in (hint, *get_args(hint)):
        if kind in WORDS:
            several = action.nargs in ("+", "*") or str(hint).startswith("tuple") or "tuple[" in str(hint)
            return WORDS[kind] + (", several" if several else "")
        if str(kind).startswith("tuple"):
            return f"{WORDS[get_args(kind)[0]]}, several"
    return ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "()" if value == () else str(value)


def _text(text: str | None) -> str:
    """Words of ``--help`` as Markdown: nothing in them is markup but what looks like an option or a file."""
    plain = html.escape(" ".join((text or "").split()), quote=False)
    return re.sub(r"([*_\[\]|])", r"\\\1", plain)
