"""Pieces of the page: text, tables, legends. Every text of a run is escaped, and may break where it is long."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fedflair.report.plots import COLOURS, MARKERS
from fedflair.system.html_page import text

# More columns than a page of 1280 pixels holds side by side: each row becomes a block of its own.
MOST_COLUMNS = 11
MOST_REPEATED = 200  # characters
_BREAKS = re.compile(r"([_=,:/]+)(?=[^_=,:/\s\d])")
# What a marker of matplotlib looks like in text.
_SHAPES = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "*": "★"}


def name(words: str) -> str:
    """The same of a name, which may break after its signs, so that a long one is not cut."""
    return _BREAKS.sub(r"\1<wbr>", text(words))


def section(title: str, *parts: str) -> str:
    """Nothing where all its parts are empty."""
    shown = "".join(parts)
    return f"<section><h2>{text(title)}</h2>{shown}</section>" if shown else ""


def paragraphs(sentences: Sequence[str], kind: str = "") -> str:
    return "".join(f'<p class="{kind}">{text(sentence)}</p>' for sentence in sentences)


def items(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[str] = (), marked: bool = True
) -> str:
    """A table whose rows are groups. words: headings of columns that stand left, beside the first.

    marked: each row begins with the group's mark. Where the page is narrow, or the table too wide for any, a row is a
    block, in which each value stands behind its heading.
    """
    if not rows:
        return ""
    kinds = ["w" if not k or heading in words else "n" for k, heading in enumerate(headings)]
    header = "".join(f'<th class="{kind}">{name(heading)}</th>' for kind, heading in zip(kinds, headings))
    body = ""
    for position, row in enumerate(rows):
        mark = f"{swatch(position)} " if marked else ""
        cells = [
            f'<td class="{kind}" data-of="{text(heading)}">{name(cell)}</td>'
            for kind, heading, cell in list(zip(kinds, headings, row))[1:]
        ]
        body += f'<tr><th class="w" scope="row">{mark}{name(row[0])}</th>{"".join(cells)}</tr>\n'
    kind = "blocks" if len(headings) > MOST_COLUMNS else ""
    return f'<table class="{kind}"><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>'


def swatch(position: int) -> str:
    """The group's mark, as the figures draw it; nothing for those that they leave out."""
    if position >= len(COLOURS):
        return ""
    return f'<span class="mark" style="color:{COLOURS[position]}">{_SHAPES[MARKERS[position]]}</span>'


def legend(names: Sequence[str], *, again: bool = False) -> str:
    """names: of all groups, of which the first are drawn. again: not where it is long, as it stands above."""
    if again and sum(map(len, names)) > MOST_REPEATED:
        return '<p class="faint">Marks as above.</p>'
    drawn = names[: len(COLOURS)]
    shown = "".join(f"<li>{swatch(k)} {name(one)}</li>" for k, one in enumerate(drawn))
    more = f"<li>the first {len(drawn)} of {len(names)} are drawn</li>" if len(names) > len(drawn) else ""
    return f'<ul class="legend">{shown}{more}</ul>'


def figures(drawn: Sequence[tuple[str, str | None]]) -> str:
    """(caption, SVG) each; those without a figure are left out."""
    shown = "".join(
        f"<figure>{figure}<figcaption>{text(caption)}</figcaption></figure>" for caption, figure in drawn if figure
    )
    return f'<div class="figures">{shown}</div>' if shown else ""


def details(title: str, content: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{name(title)}</summary>{content}</details>"


def block(words: str) -> str:
    return f"<pre>{text(words)}</pre>"
