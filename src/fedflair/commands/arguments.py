"""From a function's signature and docstring to a command: its parser, its ``--help``, and the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser

from fedflair.errors import UsageError
from fedflair.system.files import at_home


def call(function: Callable[..., object], name: str, arguments: list[str]) -> None:
    """Calls a function with arguments from the command line, typed by its signature and explained by its docstring.

    Parameters without ``*`` before them are positional; keyword-only ones are ``--options`` of their name, without a
    trailing underscore. Of ``*parameters`` there may be none, which the function refuses where it needs one.
    Raises UsageError for words that do not fit.
    """
    doc = parse(inspect.getdoc(function) or "")
    helps = {p.arg_name: p.description for p in doc.params}
    parser = ArgumentParser(prog=f"fedflair {name}", description=doc.short_description, exit_on_error=False)
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        shown = parameter.name.rstrip("_")
        options: dict[str, Any] = {"type": parameter.annotation, "help": helps.get(parameter.name)}
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            options["nargs"] = "*"
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
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        value = at_home(values[parameter.name.rstrip("_")])
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += value or []
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    function(*positional, **keywords)
