"""A mutant: one small change to one source file, known by where it is and by what it reads."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``end`` of a file become ``text``. kind: of change, such as ``boundary``."""

    start: int
    end: int
    text: str
    kind: str


@dataclass(frozen=True)
class Mutant:
    """file: from the checkout's root. room: what it is counted under. source: the file as it is."""

    file: str
    room: str
    source: bytes
    span: Span
    at_import: bool = False

    @property
    def kind(self) -> str:
        return self.span.kind

    @cached_property
    def changed(self) -> bytes:
        """The file as it would be."""
        return self.source[: self.span.start] + self.span.text.encode() + self.source[self.span.end :]

    @cached_property
    def lines(self) -> range:
        """The lines that it changes, from 1 on."""
        first = self.source.count(b"\n", 0, self.span.start) + 1
        return range(first, first + self.source.count(b"\n", self.span.start, self.span.end) + 1)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.lines.start}"

    @cached_property
    def diff(self) -> str:
        """The change as a unified diff without context."""
        before, after = self.source.decode().splitlines(), self.changed.decode().splitlines()
        lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[3:]
        return "\n".join([f"{self.place} {self.kind}", *lines])

    @cached_property
    def line(self) -> str:
        """The text of the first line that it changes."""
        return self.source.decode().splitlines()[self.lines.start - 1].strip()

    @cached_property
    def becomes(self) -> str:
        """What that line reads afterwards."""
        return self.changed.decode().splitlines()[self.lines.start - 1].strip()

    @property
    def known_by(self) -> tuple[str, ...]:
        """What an accepted mutant is known by: file, kind, line and becomes."""
        return self.file, self.kind, self.line, self.becomes

    @cached_property
    def key(self) -> str:
        """Names the change by the text around it: it stays the same while lines above come and go."""
        lines = self.source.splitlines()
        first = self.lines.start - 1
        around = b"\n".join(lines[max(0, first - 2) : self.lines.stop + 1])
        column = self.span.start - sum(len(line) + 1 for line in lines[:first])
        words = repr((self.file, self.kind, around, column, self.span.text)).encode()
        return hashlib.sha256(words).hexdigest()[:16]
