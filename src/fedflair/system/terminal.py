"""The one way to the terminal for text that is not ours: names from datasets, servers, files and configurations."""

from __future__ import annotations

import unicodedata

# Rows and columns are ours; everything else that is not visible could steer a terminal.
_KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    """``text`` with control characters, bidirectional marks and lone surrogates spelled out: ``\\x1b``, ``\\u202e``.

    To be printed as it is: a console must not look for markup in it (``Console(markup=False)``, ``rich.text.Text``).
    """
    return "".join(c if c in _KEPT or _is_visible(c) else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """As ``printable``, with every run of white space made one space."""
    return printable(" ".join(text.split()))


def _is_visible(character: str) -> bool:
    return character.isprintable() and unicodedata.category(character) not in ("Cf", "Cs", "Co", "Cn")
