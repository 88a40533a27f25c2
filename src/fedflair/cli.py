"""The command line: command NAME is the function NAME in ``fedflair.commands.NAME``, imported when it is called."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence

from fedflair import __version__
from fedflair.errors import FedflairError, Interrupted, UsageError
from fedflair.system.terminal import one_line, say

COMMANDS = {
    "download": "fetch the real dataset, resumable and verified",
    "prepare": "turn any FLAIR files into one packed store",
    "synthesize": "make a FLAIR-like dataset with no network",
    "describe": "show a store's statistics",
    "convert": "rewrite a store in another tool's layout, or back",
    "train": "train in simulated federated learning",
    "evaluate": "score a run's best model on a partition",
    "sweep": "train a grid or random samples of options, with several seeds",
    "report": "compare runs in one HTML page",
    "epsilon": "ask the privacy accountant",
    "ledger": "verify a run's privacy ledger",
    "audit": "measure what the privacy path really gives",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 well, 1 an error of the package, 2 wrong usage, 130 stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        say(f"fedflair {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        return _fail(f"unknown command {arguments[0]!r}; one of: {', '.join(COMMANDS)}", 2)
    return guarded(lambda: run(arguments))


def run(arguments: Sequence[str]) -> None:
    """Runs one command, letting its errors pass. Raises FedflairError.

    A function whose one parameter is named ``arguments`` gets the words themselves, which it parses.
    """
    name, words = arguments[0], list(arguments[1:])
    function: Callable[..., object] = getattr(importlib.import_module(f"fedflair.commands.{name}"), name)
    if list(inspect.signature(function).parameters) == ["arguments"]:
        function(words)
    else:
        # Here, so that fedflair --help loads no parser.
        from fedflair.commands.arguments import call

        call(function, name, words)


def guarded(action: Callable[[], object]) -> int:
    """The exit status of ``action``: an error of the package becomes one line on stderr, never a traceback."""
    try:
        action()
    except UsageError as error:
        return _fail(str(error), 2)
    except Interrupted as error:
        return _fail(str(error), 130)
    except FedflairError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:
        # The reader of our output has gone; hand the interpreter a sink so that it can close quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _usage() -> str:
    lines = [f"  {name:<12}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fedflair COMMAND [...]",
            "",
            "The FLAIR federated-learning benchmark: data, simulation, privacy, evaluation, report.",
            "",
            *lines,
            "",
            "'fedflair COMMAND --help' explains a command.",
        ]
    )


def _fail(message: str, status: int) -> int:
    say(f"fedflair: {one_line(message)}", stderr=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
