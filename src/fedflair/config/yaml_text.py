"""YAML to a file, and from one that somebody may have damaged, or meant to: a value, or a ValueError that says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fedflair.system.json_text import read_text
from fedflair.system.terminal import one_line

# Of C where it is there, in which a sweep's hundreds of configurations are read ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 30
_LARGEST = 100_000
_MOST_DIGITS = 100
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-Fxob_:.]*")


def read_yaml(path: Path) -> Any:
    """A file's value. Raises ValueError where it is none, and DataError where the file cannot be read."""
    return parse_yaml(read_text(path))


def as_yaml(value: Any) -> str:
    """Plain values as YAML that ``parse_yaml`` reads, in their order."""
    return str(yaml.safe_dump(value, sort_keys=False))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError for what is none, or is nested or repeats itself beyond any use."""
    try:
        _check_size(text)
        return yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise ValueError(one_line(str(error))) from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        # Values that are not what their tags say, such as !!bool maybe, come as any of these.
        raise ValueError(one_line(str(error)) or type(error).__name__) from error


def _check_size(text: str) -> None:
    """Before anything is built: what C builds by recursion could end the process, and aliases multiply.

    Counts what would be there with every alias written out. Raises ValueError.
    """
    sizes: dict[str, tuple[int, int]] = {}
    # (size, height, anchor) of each collection that is open.
    open_: list[tuple[int, int, str | None]] = [(0, 0, None)]
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((1, 0, event.anchor))
            _check_bounds(1, len(open_))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, height, anchor = open_.pop()
            height += 1
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _MOST_DIGITS and event.implicit[0] and _NUMBER.fullmatch(event.value):
                raise ValueError(f"a number of {len(event.value):,} digits")
            size, height, anchor = 1, 0, event.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} is used before its value has ended")
            (size, height), anchor = sizes[event.anchor], None
        else:
            continue
        if anchor is not None:
            sizes[anchor] = (size, height)
        outer_size, outer_height, outer_anchor = open_.pop()
        open_.append((outer_size + size, max(outer_height, height), outer_anchor))
        _check_bounds(outer_size + size, len(open_) + height)


def _check_bounds(size: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if size > _LARGEST:
        raise ValueError("too large")
