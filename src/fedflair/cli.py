"""The command line: a command's name leads to a plain function, imported only when it is called."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fedflair import __version__
from fedflair.errors import FedflairError, Interrupted

COMMANDS: dict[str, tuple[str, str]] = {
    "download": ("fedflair.data.download.run:download", "fetch the real dataset, resumable and verified"),
    "prepare": ("fedflair.data.store.prepare:prepare", "turn any FLAIR files into one packed store"),
    "synthesize": ("fedflair.data.synthetic.synthesize:synthesize", "make a FLAIR-like dataset with no network"),
    "describe": ("fedflair.data.describe.tables:describe", "show a store's statistics"),
    "convert": ("fedflair.data.store.convert:convert", "rewrite a store in another tool's layout, or back"),
    "train": ("fedflair.config.options:train_command", "train in simulated federated learning"),
    "evaluate": ("fedflair.config.options:evaluate_command", "score a run's best model on a partition"),
    "sweep": ("fedflair.sweep.trials:sweep_command", "train a grid or random samples of options, with several seeds"),
    "report": ("fedflair.report.table:report", "compare runs in one HTML page"),
    "epsilon": ("fedflair.privacy.accounting.epsilon:epsilon", "ask the privacy accountant"),
    "ledger": ("fedflair.privacy.ledger.record:ledger", "verify a run's privacy ledger"),
    "audit": ("fedflair.audit.measure:audit", "measure what the privacy path really gives"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 well, 1 an error of the package, 2 wrong usage, 130 stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"fedflair {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        return _fail(f"unknown command {arguments[0]!r}; one of: {', '.join(COMMANDS)}", 2)
    return guarded(lambda: run(arguments))


def run(arguments: Sequence[str]) -> None:
    """Runs one command, letting its errors pass. Raises FedflairError."""
    function = _load(COMMANDS[arguments[0]][0])
    if "arguments" in inspect.signature(function).parameters:
        function(list(arguments[1:]))
    else:
        call(function, arguments[0], list(arguments[1:]))


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


def call(function: Callable[..., object], name: str, arguments: list[str]) -> None:
    """Calls a function with arguments from the command line, typed by its signature and explained by its docstring.

    Parameters without ``*`` before them are positional; keyword-only ones are ``--options`` of their name, without a
    trailing underscore.
    """
    from docstring_parser import parse
    from jsonargparse import ArgumentError, ArgumentParser

    doc = parse(inspect.getdoc(function) or "")
    helps = {p.arg_name: p.description for p in doc.params}
    parser = ArgumentParser(prog=f"fedflair {name}", description=doc.short_description, exit_on_error=False)
    names: dict[str, str] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        shown = parameter.name.rstrip("_")
        names[shown] = parameter.name
        options: dict[str, Any] = {"type": parameter.annotation, "help": helps.get(parameter.name)}
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            options["nargs"] = "+"
            parser.add_argument(shown, **options)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            required = parameter.default is inspect.Parameter.empty
            if parameter.annotation is bool:
                options |= {"action": "store_true"}
                options.pop("type")
            elif not required:
                options["default"] = parameter.default
            parser.add_argument(f"--{shown}", required=required, **options)
        else:
            parser.add_argument(shown, **options)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        raise UsageError(f"{name}: {error}") from error
    positional, keywords = [], {}
    for parameter in inspect.signature(function).parameters.values():
        value = values[parameter.name.rstrip("_")]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    function(*positional, **keywords)


class UsageError(FedflairError):
    """The words of a command are off."""


def _load(target: str) -> Callable[..., object]:
    module, _, name = target.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function


def _usage() -> str:
    lines = [f"  {name:<12}{purpose}" for name, (_, purpose) in COMMANDS.items()]
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
    print(f"fedflair: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
