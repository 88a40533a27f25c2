"""The one way to the terminal for text that is not ours: names from datasets, servers, files and configurations.

Lines go through ``say``; tables, bars and colours through ``console.py``. Nothing else prints.
"""

from __future__ import annotations

import re
import sys
import unicodedata

# What needs no look: visible ASCII.
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def printable(text: str, *, kept: str = "\n\t") -> str:
    """``text`` with control characters, bidirectional marks and lone surrogates spelled out: ``\\x1b``, ``\\u202e``.

    kept: those of them that stay, as rows and columns are ours. To be printed as it is: what prints it must not look
    for markup in it (``console.Console`` does not).
    """
    return _SUSPECT.sub(
        lambda found: found[0] if found[0] in kept or _is_visible(found[0]) else _spelled(found[0]), text
    )


def one_line(text: str) -> str:
    """As ``printable``, with every run of white space made one space."""
    return printable(" ".join(text.split()), kept="")


def cell(text: str) -> str:
    """As ``printable``, for a place that has one line only: line ends and tabs are spelled out too."""
    return printable(text, kept="")


def encodable(text: str, encoding: str | None) -> str:
    """``text`` with what a stream of that encoding cannot take spelled out."""
    name = encoding or "utf-8"
    return text.encode(name, "backslashreplace").decode(name)


def say(text: str, *, stderr: bool = False) -> None:
    """Prints lines of text, whatever is in them. Raises OSError where the stream is closed or full."""
    stream = sys.stderr if stderr else sys.stdout
    print(encodable(printable(text), stream.encoding), file=stream, flush=stderr)


def _is_visible(character: str) -> bool:
    return character.isprintable() and unicodedata.category(character) not in ("Cf", "Cs", "Co", "Cn")


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
