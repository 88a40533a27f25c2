"""JSON from a file that somebody may have damaged, or meant to: a value, or a ValueError that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedflair.errors import DataError
from fedflair.system.files import disk_errors

# Nothing that the package writes comes near.
_DEEPEST = 30
_MOST_DIGITS = 20


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, or is nested or long beyond any use."""
    try:
        value = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError("not JSON") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if text.count("[") + text.count("{") <= _DEEPEST:
        return value
    inside = [value]
    for _ in range(_DEEPEST):
        inside = [item for outer in inside for item in _items(outer) if isinstance(item, dict | list)]
        if not inside:
            return value
    raise ValueError("nested too deeply")


def read_text(path: Path) -> str:
    """A file's text. Raises ValueError where it is not UTF-8, and DataError, in one line, where it cannot be read."""
    with disk_errors(path):
        content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error


def read_json(path: Path, remedy: str) -> Any:
    """A file's value. Raises DataError, naming the file and ``remedy``, where it is none."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)
