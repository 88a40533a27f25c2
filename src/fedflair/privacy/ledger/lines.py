"""The lines of ``privacy_ledger.jsonl``: JSON of one form each, with the hash of the line before and its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedflair.errors import DataError
from fedflair.system.files import disk_errors
from fedflair.system.json_text import parse_json

FILE_NAME = "privacy_ledger.jsonl"
FORMAT = "fedflair-privacy-ledger"
# 2: noise is bound to the sum that it is added to. 3: line 1 is bound to the run, and checkpoints to their line.
# Earlier versions are verified, and not continued.
VERSION = 3
# What line 1 says is the hash of the line before.
ORIGIN = "0" * 64
SEALS = ("previous", "hash")
TORN = "cut short"

# A line as it was read, with what is wrong with it by itself ('' for nothing).
Read = tuple[dict[str, Any], str]


def sealed(line: Mapping[str, Any], previous: str) -> tuple[str, str]:
    """(the line's text with the hash of the line before and its own, its own hash)."""
    linked = {**line, "previous": previous}
    own = hashlib.sha256(_canonical(linked).encode()).hexdigest()
    return text_of({**linked, "hash": own}), own


def text_of(line: Mapping[str, Any]) -> str:
    """A line with its hashes as it stands in the file, its end included."""
    return _canonical(line) + "\n"


def told(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says, without its hashes."""
    return {name: value for name, value in line.items() if name not in SEALS}


def read_lines(path: Path) -> list[Read]:
    """The ledger's lines, each with what is wrong with it by itself. Raises DataError without a ledger."""
    if not path.exists():
        raise DataError(f"{path}: no such ledger; only runs with a privacy mechanism keep one")
    with disk_errors(path):
        # Not as text, whose line ends would be made alike.
        text = path.read_bytes().decode(errors="replace")
    *whole, torn = text.split("\n")
    lines = [_read(line) for line in whole]
    return [*lines, ({}, TORN)] if torn else lines


def _read(text: str) -> Read:
    try:
        line = parse_json(text)
        # What is no number has no place in a ledger, and none in what its hash is made of.
        canonical = _canonical(line)
    except ValueError:
        return {}, "is not JSON"
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in SEALS):
        return {}, "is not a line of a ledger"
    unsealed = {name: value for name, value in line.items() if name != "hash"}
    if hashlib.sha256(_canonical(unsealed).encode()).hexdigest() != line["hash"] or canonical != text:
        return line, "was edited (its hash does not fit)"
    return line, ""


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
