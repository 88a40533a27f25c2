"""Strict JSON."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import fedflair
from fedflair.runs.json_text import dumps, strict


def test_what_is_no_number_is_null() -> None:
    values = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": float("nan"), "e": "nan", "f": None}}
    assert dumps(values) == json.dumps(strict(values), allow_nan=False)
    text = dumps(values)
    assert text == '{"a": null, "b": [1.0, null], "c": {"d": null, "e": "nan", "f": null}}'


def test_nothing_else_in_the_rooms_above_writes_json() -> None:
    # Below, in data/ and privacy/, it is names, counts and finite numbers that are written.
    package = Path(fedflair.__file__).parent
    rooms = ("runs", "federated", "backends", "evaluation", "training", "sweep", "audit", "report", "commands")
    calls = [
        f"{path.relative_to(package)}:{node.lineno}"
        for room in rooms
        for path in (package / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("json.dumps", "json.dump", "format.dumps"))
        if "allow_nan=False" not in ast.unparse(node)
    ]
    assert calls == []
