"""``fedflair report``: reads run folders and sweep folders only, and writes one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedflair.errors import UsageError
from fedflair.report.data import read_groups, summaries
from fedflair.report.page import page
from fedflair.report.table import HEADINGS, cells, notes
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console, table
from fedflair.system.files import write_atomically
from fedflair.system.terminal import say

ON_TERMINAL = ("run", "rounds", "epsilon", "macro AP", "micro AP", "minutes")


def report(*runs: Path, output: Path = Path("report.html"), json: bool = False) -> None:
    """Compare runs: a table here, and a page with curves, labels, users and costs.

    Args:
        runs: Run folders and sweep folders.
        output: The HTML file to write.
        json: Print the runs' summaries as JSON.
    """
    if not runs:
        raise UsageError("report: name at least one run folder")
    groups = read_groups(runs)
    rows, sentences = [cells(group) for group in groups], notes(groups)
    write_atomically(output, page(groups, HEADINGS, rows, sentences))
    if json:
        say(dumps(summaries(groups)))
    else:
        _show(rows, sentences, output)


def _show(rows: Sequence[Sequence[str]], sentences: Sequence[str], output: Path) -> None:
    console = Console()
    shown = [[text for heading, text in zip(HEADINGS, row) if heading in ON_TERMINAL] for row in rows]
    console.print(
        table("Test partition, best model on val", ON_TERMINAL, shown, wrapped=[ON_TERMINAL.index("epsilon")])
    )
    for sentence in [*sentences, f"report: {output}"]:
        console.say(sentence)
