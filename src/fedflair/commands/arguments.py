"""From a function's signature and docstring to a command: its parser, its ``--help``, and the call.

The docstring's sections are the headings of the help: ``Args:`` first, then whatever else an author groups under a
heading of its own, such as ``Bounds:``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from docstring_parser.google import DEFAULT_SECTIONS, GoogleParser, Section, SectionType
from jsonargparse import ArgumentParser

from fedflair.config.parsing import make_parser, parse
from fedflair.system.files import at_home

_HEADING = re.compile(r"^([A-Z][^\n:]*):\n(?=    )", re.MULTILINE)


def parser_of(function: Callable[..., object], name: str) -> ArgumentParser:
    """The parser of a command that a function is: typed by its signature and explained by its docstring.

    Parameters without ``*`` before them are positional; keyword-only ones are ``--options`` of their name, without a
    trailing underscore. Of ``*parameters`` there may be none, which the function refuses where it needs one.
    """
    text = inspect.getdoc(function) or ""
    headings = _HEADING.findall(text)
    own = [Section(heading, heading, SectionType.MULTIPLE) for heading in headings if heading != "Args"]
    doc = GoogleParser([*DEFAULT_SECTIONS, *own]).parse(text)
    told = {
        words[-1].split(" ")[0]: (words[0], entry.description)
        for entry in doc.meta
        if len(words := [str(word) for word in entry.args]) > 1
    }
    parser = make_parser(name, doc.short_description)
    groups = {heading: parser.add_argument_group(heading) for heading in headings if heading != "Args"}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        shown = parameter.name.rstrip("_")
        heading, help_ = told.get(parameter.name, ("param", None))
        place: Any = groups.get(heading, parser)
        options: dict[str, Any] = {"type": parameter.annotation, "help": help_}
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            place.add_argument(shown, nargs="*", **options)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            required = parameter.default is inspect.Parameter.empty
            if parameter.annotation is bool:
                options |= {"action": "store_true"}
                options.pop("type")
            elif not required:
                options["default"] = parameter.default
            place.add_argument(f"--{shown}", required=required, **options)
        else:
            place.add_argument(shown, **options)
    return parser


def call(function: Callable[..., object], name: str, arguments: list[str]) -> None:
    """Calls a function with arguments from the command line, as ``parser_of`` reads them.

    Raises UsageError for words that do not fit.
    """
    values = parse(parser_of(function, name), arguments)
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
