"""Tables and bars on the terminal: whatever text reaches them is shown as it is, and steers nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import rich.box
import rich.console
import rich.table
from rich.text import Text

from fedflair.system.terminal import cell, encodable, printable

Table = rich.table.Table


class Console(rich.console.Console):
    """Prints every text as ``terminal.printable`` makes it, in tables and titles too; none of it is markup."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Where rich turns every text into what it prints."""
        shown = encodable(printable(text), self.encoding)
        return super().render_str(shown, **{**options, "markup": False, "emoji": False})

    def say(self, text: str) -> None:
        """Lines that are not wrapped: a terminal wraps them itself, and a file has them whole."""
        self.print(text, soft_wrap=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    framed: bool = True,
    wrapped: Collection[int] = (),
    words: Collection[int] = (),
    faint_columns: Collection[int] = (),
    faint_rows: Collection[int] = (),
) -> Table:
    """A table whose first column holds words and the others numbers, which stay whole where words and headings wrap.

    framed: with lines around it. wrapped: positions of columns whose cells may break at their spaces.
    words: positions of further columns of words, which stand left.
    faint_columns, faint_rows: positions of what is there to compare with.
    """
    box = rich.box.HEAVY_HEAD if framed else rich.box.SIMPLE_HEAD
    made = Table(title=cell(title), title_justify="left", box=box, pad_edge=framed)
    shown = [[cell(text) for text in row] for row in rows]
    for position, name in enumerate(columns):
        style = "dim" if position in faint_columns else ""
        if position == 0:
            made.add_column(cell(name), style=style, overflow="fold")
        else:
            texts = [row[position] for row in shown]
            pieces = [piece for text in texts for piece in text.split()] if position in wrapped else texts
            widest = max(map(len, pieces), default=0)
            side: Literal["left", "right"] = "left" if position in words else "right"
            made.add_column(cell(name), justify=side, style=style, overflow="fold", min_width=widest)
    for position, row in enumerate(shown):
        made.add_row(*row, style="dim" if position in faint_rows else None)
    return made
