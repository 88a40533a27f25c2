"""Strict JSON."""

from __future__ import annotations

import json

from fedflair.runs.json_text import strict


def test_what_is_no_number_is_null() -> None:
    values = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": float("nan"), "e": "nan", "f": None}}
    text = json.dumps(strict(values), allow_nan=False)
    assert text == '{"a": null, "b": [1.0, null], "c": {"d": null, "e": "nan", "f": null}}'
