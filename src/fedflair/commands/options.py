"""``fedflair options``: every option, what it may be and what it means; as tables, or as a page of the docs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fedflair.commands import COMMANDS
from fedflair.commands.parsers import parser_of_command
from fedflair.config.described import GENERAL, Described, described
from fedflair.config.parsing import unknown
from fedflair.errors import UsageError
from fedflair.system.console import Console, table
from fedflair.system.terminal import say

_HEADINGS = ("option", "default", "allowed", "meaning")
# On a terminal, whose lines are short.
_SHORT_HEADINGS = ("option", "meaning, what it may be, and what it is if not given")


def options(*words: str, command: str = "train", markdown: bool = False) -> None:
    """Show a command's options with their defaults, allowed values and meaning; those of a training, if not named.

    Args:
        words: Only options with one of these in their names, such as privacy or rate.
        command: The command whose options to show.
        markdown: Print the documentation's page of every command's options instead (docs/options.md).
    """
    if command not in COMMANDS:
        raise UsageError(f"command: {command} is no command; it must be one of {', '.join(COMMANDS)}")
    if markdown:
        if words:
            raise UsageError(f"words: {words[0]} is given together with --markdown, which prints everything; drop it")
        say(page())
        return
    found = described(parser_of_command(command))
    known = {option.name.removeprefix("--") for group in found.values() for option in group}
    for searched in words:
        if not any(searched in name for name in known):
            raise UsageError(unknown(searched, sorted(known), command))
    console = Console()
    for heading, group in found.items():
        shown = [option for option in group if not words or any(searched in option.name for searched in words)]
        if shown:
            console.print(table(heading, _SHORT_HEADINGS, map(_short_row, shown), wrapped=[1], words=[1]))


def _row(option: Described) -> Sequence[str]:
    default = "required" if option.required else option.default or "-"
    return [option.name, default.replace(",", ", "), option.allowed, option.meaning]


def _short_row(option: Described) -> Sequence[str]:
    # Names stand in the meaning already.
    told = [] if option.allowed.endswith("plugin's") else [option.allowed]
    facts = [*told, *([f"default: {option.default}"] if option.default else [])]
    return [option.name, f"{option.meaning} ({'; '.join(['required', *facts] if option.required else facts)})"]


def page() -> str:
    """Every command's options, in Markdown; ``docs/options.md`` is it."""
    lines = [
        "# Options",
        "",
        "Every command with its options, as `fedflair options --markdown` prints them from the code.",
        "",
        "Options of a training come from a YAML file (`--args_config`, by the same names) and from the command line, "
        "which wins. They have no short forms and are not abbreviated. A value of null is that of an option that is "
        "not given. One that would have no effect is refused on the command line; a file may carry it.",
        "",
    ]
    for name, purpose in COMMANDS.items():
        lines += [f"## fedflair {name}", "", f"{purpose[0].upper()}{purpose[1:]}.", ""]
        lines += _command_lines(name, described(parser_of_command(name)))
    return "\n".join(lines).rstrip("\n")


def _command_lines(name: str, groups: Mapping[str, Sequence[Described]]) -> Iterator[str]:
    if name in ("sweep", "reproduce"):
        # Its own alone, since those of the runs stand under train.
        groups = {heading: options for heading, options in groups.items() if heading == GENERAL}
        yield "Every option of `fedflair train` is one of all its runs, and these are its own:"
        yield ""
    for heading, options in groups.items():
        if len(groups) > 1:
            yield f"### {heading}"
            yield ""
        yield "| " + " | ".join(_HEADINGS) + " |"
        yield "|---" * len(_HEADINGS) + "|"
        for option in options:
            code, *others = _row(option)
            yield "| " + " | ".join([f"`{code}`", *map(_escaped, others)]) + " |"
        yield ""


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")
