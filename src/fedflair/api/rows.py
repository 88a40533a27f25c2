"""Rows of named values, as lists of dictionaries or, where pandas is there, as its frame."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from fedflair.errors import FedflairError
from fedflair.system.terminal import cell

if TYPE_CHECKING:
    import pandas

Row = Mapping[str, Any]
_MOST_SHOWN = 10


@dataclass(frozen=True, repr=False)
class Rows(Sequence[Row]):
    """A sequence of mappings from names to values, which may have different names. what: what they are called."""

    rows: tuple[Row, ...]
    what: str = "rows"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> Rows: ...
    def __getitem__(self, position: int | slice) -> Row | Rows:
        return Rows(self.rows[position], self.what) if isinstance(position, slice) else self.rows[position]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names in all rows, in the order in which they first come."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str) -> list[Any]:
        """The values of the rows that have the name. Raises KeyError where none has."""
        if name not in self.columns:
            raise KeyError(name)
        return [row[name] for row in self.rows if name in row]

    def frame(self) -> pandas.DataFrame:
        """As a ``pandas.DataFrame``. Raises FedflairError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise FedflairError(
                "pandas: not installed here; pip install pandas, or use the rows as they are"
            ) from error
        return pandas.DataFrame.from_records([dict(row) for row in self.rows], columns=list(self.columns))

    def __repr__(self) -> str:
        names = ", ".join(map(cell, self.columns[:_MOST_SHOWN])) + (", ..." if len(self.columns) > _MOST_SHOWN else "")
        return f"<{len(self.rows):,} {self.what}: {names}>"

    def _repr_html_(self) -> str:
        """The last rows, for a notebook."""
        columns = self.columns
        head = "".join(f"<th>{_text(name)}</th>" for name in columns)
        lines = [
            "<tr>" + "".join(f"<td>{_text(_number(row.get(name)))}</td>" for name in columns) + "</tr>"
            for row in self.rows[-_MOST_SHOWN:]
        ]
        note = (
            f"<p>The last {len(lines)} of {len(self.rows):,} {_text(self.what)}.</p>" if len(self) > len(lines) else ""
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{note}"


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return html.escape(cell(text))
