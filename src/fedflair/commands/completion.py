"""``fedflair completion``: a script with which a shell completes commands, options and their values.

The script holds the names, so that a shell starts no Python at each press of the key, as it would with a library that
asks the program; it is printed again after an update. shtab writes it for the shells that there are.
"""

from __future__ import annotations

import argparse
from typing import Literal

from fedflair.commands import COMMANDS
from fedflair.commands.parsers import parser_of_command
from fedflair.config.allowed import choices, is_path
from fedflair.config.names import OWN_NAMES
from fedflair.config.parsing import options_of, type_of
from fedflair.system.terminal import say


def completion(shell: Literal["bash", "zsh", "fish", "tcsh"]) -> None:
    """Print a script that completes fedflair's commands, options and values in a shell.

    Args:
        shell: The shell: bash, zsh, fish or tcsh.
    """
    # Here, as the page of options, say, needs the command's words alone.
    import shtab

    say(shtab.complete(_tree(), shell))


def _tree() -> argparse.ArgumentParser:
    """All commands in one parser of the standard library's, which shtab reads."""
    tree = argparse.ArgumentParser("fedflair", allow_abbrev=False)
    commands = tree.add_subparsers()
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        for action in options_of(parser_of_command(name)):
            _copy(action, command)
    return tree


def _copy(action: argparse.Action, command: argparse.ArgumentParser) -> None:
    names, kind = action.option_strings or [action.dest], type_of(action)
    # A formatter's marks to argparse.
    help_ = (action.help or "").replace("%", "%%")
    if action.option_strings and action.nargs == 0:
        command.add_argument(*names, action="store_true", help=help_)
        return
    named = OWN_NAMES.get(action.dest) or choices(kind)
    copied = command.add_argument(*names, help=help_, choices=named or None, nargs=action.nargs)
    if is_path(kind) or action.dest in ("args_config", "sweep_config", "output"):
        from shtab import FILE

        copied.complete = FILE  # type: ignore[attr-defined]  # where shtab looks for it
