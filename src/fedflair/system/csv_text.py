"""Cells of CSV files that people open in spreadsheets."""

from __future__ import annotations

from typing import Any

from fedflair.system.terminal import encodable

# What a spreadsheet begins a formula with.
_FORMULA = tuple("=+-@\t\r")


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = encodable(value, "utf-8")
    return f"'{text}" if text[:1] in _FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
