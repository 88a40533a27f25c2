"""What an option may be and what it is, in the words of whoever types it: no name of a Python type among them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

# A type -> (what a value of it is, the word that stands for one in a usage line).
_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "BOOL"),
    int: ("a whole number", "N"),
    float: ("a number", "X"),
    str: ("a text", "TEXT"),
    Path: ("a file or folder", "PATH"),
}


def allowed(annotation: Any) -> str:
    """What values of a type are: ``a whole number, or null``; null is what leaves an option out."""
    known = _WORDS.get(annotation)
    if known is not None:
        return known[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return either(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        kinds = [allowed(kind) for kind in arguments if kind is not type(None)]
        return " or ".join(kinds) + (", or null" if type(None) in arguments else "")
    if origin in (tuple, list):
        return "a list such as [a,b]"
    return "a text"


def metavar(annotation: Any) -> str:
    """The word that stands for a value in a usage line."""
    known = _WORDS.get(annotation)
    if known is not None:
        return known[1]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "{" + ",".join(str(value) for value in arguments) + "}"
    if origin in (Union, types.UnionType):
        return metavar(next(kind for kind in arguments if kind is not type(None)))
    return "[A,B]" if origin in (tuple, list) else "TEXT"


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a type that has a few only; none for all others."""
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    for kind in get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ():
        if found := choices(kind):
            return found
    return ()


def is_path(annotation: Any) -> bool:
    """Whether values of a type name files."""
    return annotation is Path or Path in get_args(annotation)


def word(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)


def either(names: Any) -> str:
    """``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else str(last)
