"""A page for each command, from the parser that reads the command's words: no default is written twice."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from fedflair.commands import COMMANDS
from fedflair.commands.parsers import parser_of_command
from fedflair.config.described import Described, described
from fedflair.config.train_config import NAMES

# Other commands that have its options whole lead to its page.
WITH_ALL_OPTIONS = "train"


def overview() -> str:
    """All commands with what they do, each leading to its page."""
    rows = [f"| [`fedflair {name}`](commands/{name}.md) | {purpose} |" for name, purpose in COMMANDS.items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def page(name: str) -> str:
    """The page of a command: purpose, usage, and every option with its values, default and meaning."""
    parser = parser_of_command(name)
    groups = described(parser)
    lines = [f"# fedflair {name}", "", text(parser.description), "", "```text", _usage(name, groups.values()), "```"]
    shared = _of_the_trainings(name, groups)
    for heading, options in groups.items():
        if heading not in shared:
            # "Data: what is trained on" is a heading, and what it says.
            title, _, words = heading.partition(": ")
            lines += ["", f"## {text(title)}", "", *([text(f"{words[0].upper()}{words[1:]}."), ""] if words else [])]
            lines += [line for option in options for line in entry(option)]
    if shared:
        lines += ["", "## Of the trainings", "", f"All [options of `fedflair train`]({WITH_ALL_OPTIONS}.md) as well."]
    return "\n".join(lines) + "\n"


def _of_the_trainings(name: str, groups: Mapping[str, Sequence[Described]]) -> set[str]:
    """The headings of ``fedflair train``'s options in another command that has all of them."""
    of_train = described(parser_of_command(WITH_ALL_OPTIONS))
    every = {title: found for title, found in of_train.items() if all(option.name[2:] in NAMES for option in found)}
    has_all = all(groups.get(title) == options for title, options in every.items())
    return set(every) if has_all and name != WITH_ALL_OPTIONS else set()


def _usage(name: str, groups: Iterable[Sequence[Described]]) -> str:
    options = [option for group in groups for option in group]
    words = [_placeholder(option) for option in options if not _is_named(option)]
    words += [f"{option.name} {_placeholder(option)}" for option in options if _is_named(option) and option.required]
    return " ".join(["fedflair", name, *words, "[--option value ...]"])


def _is_named(option: Described) -> bool:
    return option.name.startswith("-")


def _placeholder(option: Described) -> str:
    upper = option.name.removeprefix("--").upper()
    return upper if option.required else f"[{upper} ...]"


def entry(option: Described) -> list[str]:
    """A definition: the option, what it may be and what it is if not given; then what it means."""
    facts = [text(option.allowed)]
    if option.required:
        facts.append("**required**")
    elif option.default:
        facts.append(f"default `{option.default}`")
    anchor = f'<span id="{option.name.removeprefix("--")}"></span>' if _is_named(option) else ""
    return [f"{anchor}`{option.name}` · {' · '.join(facts)}", f":   {text(option.meaning) or '-'}", ""]


def text(words: str | None) -> str:
    """Words as Markdown in which nothing is markup."""
    return re.sub(r"([*_\[\]|])", r"\\\1", html.escape(" ".join((words or "").split()), quote=False))
