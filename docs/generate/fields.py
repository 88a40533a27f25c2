"""The fields that a class's docstring explains, each ``name: words`` with its further lines indented, as a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

# griffe takes such a line with an indented one under it for the title of a box.
FIELD = re.compile(r"^(\w+(?:, \w+)*): (.*(?:\n {4}\S.*)*)$", re.MULTILINE)


class Fields(griffe.Extension):
    """For mkdocstrings, in mkdocs.yml."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Writes the docstring's fields as items, before it is parsed."""
        if cls.docstring is not None:
            cls.docstring.value = listed(cls.docstring.value)


def listed(words: str) -> str:
    """The docstring with its fields as items of a list."""
    return FIELD.sub(lambda match: f"\n- **{match[1]}**: {' '.join(match[2].split())}\n", words)
