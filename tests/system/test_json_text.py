"""JSON that somebody damaged is refused in a few words; what the package writes is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.errors import DataError
from fedflair.system.json_text import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"a": 1', "not JSON"),
        ("[" * 50_000, "nested too deeply"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
    ],
)
def test_what_is_no_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DataError, match=rf"f\.json: {message}; do this"):
        read_json(tmp_path / "f.json", "do this")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(b'"\xff"')
    with pytest.raises(DataError, match=r"f\.json: not UTF-8 text; do this"):
        read_json(tmp_path / "f.json", "do this")
    with pytest.raises(DataError, match="absent"):
        read_json(tmp_path / "absent", "do this")


def test_what_the_package_writes_is_read() -> None:
    value = {"a": [1, -2.5, None, True, "é\ud800"], "b": {"c": [[1]] * 40}, "d": (1 << 64) - 1}
    assert parse_json(json.dumps(value)) == value
