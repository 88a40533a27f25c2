"""The shipped configurations, each with the words at its head and what is in it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from fedflair.config.options import PRESETS


def shipped() -> list[Path]:
    """All of them, by name."""
    return sorted(PRESETS.glob("*.yaml"))


def sweeps() -> list[Path]:
    """The sweep files beside the package."""
    return sorted((Path(__file__).parents[2] / "benchmarks").glob("*.yaml"))


def purpose_and_options(path: Path) -> tuple[str, str]:
    """The comment at the head of a file, as a sentence or more, and the lines under it."""
    lines = path.read_text().splitlines()
    head = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    # Commands in it are indented, and stand in lines of their own.
    words = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:head])
    return re.sub(r"((?:^  .*\n?)+)", r"\n```text\n\1```\n", words, flags=re.MULTILINE), "\n".join(lines[head:]).strip()


def listing(paths: Sequence[Path]) -> str:
    """A section for each: its purpose, and the file, folded away where it is long."""
    parts = []
    for path in paths:
        purpose, options = purpose_and_options(path)
        if not purpose:
            raise ValueError(f"{path}: begins with no comment that says what it is for")
        body = f"```yaml\n{options}\n```"
        parts.append(f"### {path.stem}\n\n{html.escape(purpose, quote=False)}\n\n{body}")
    return "\n\n".join(parts)
