"""``fedflair report``: reads run folders and sweep folders, and writes one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedflair.errors import UsageError
from fedflair.report.data import read_groups, summaries
from fedflair.report.findings import Findings, findings, rule_of
from fedflair.report.page import page
from fedflair.report.table import HEADINGS, NOISE, cells, notes, promised
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console, table
from fedflair.system.files import write_atomically
from fedflair.system.terminal import say

ON_TERMINAL = ("run", "rounds", "epsilon", NOISE, "macro AP", "micro AP", "minutes")


def report(*runs: Path, output: Path = Path("report.html"), json: bool = False, no_photos: bool = False) -> None:
    """Compare runs: what one sees in words and a table here, and a page with all that is known of them.

    Args:
        runs: Run folders and sweep folders.
        output: The HTML file to write.
        json: Print the runs' summaries as JSON.
        no_photos: Leave out of the page the photographs of test in which each model is surest.
    """
    if not runs:
        raise UsageError("report: name at least one run folder")
    groups = read_groups(runs)
    found, below = findings(groups), notes(groups)
    write_atomically(output, page(groups, found, below, photos=not no_photos))
    if json:
        say(dumps(summaries(groups)))
    else:
        _show([cells(group) for group in groups], found, [*promised(groups), *below], output)


def _show(rows: Sequence[Sequence[str]], found: Findings, sentences: Sequence[str], output: Path) -> None:
    console = Console()
    for sentence in [f"{found.headline}.", *found.sentences, *rule_of(found)]:
        console.say(sentence)
    headings = [
        heading for heading in ON_TERMINAL if heading != NOISE or any(row[HEADINGS.index(NOISE)] != "-" for row in rows)
    ]
    shown = [[row[HEADINGS.index(heading)] for heading in headings] for row in rows]
    console.print(table("Test partition, best model on val", headings, shown, wrapped=[headings.index("epsilon")]))
    for sentence in [*sentences, f"report: {output}"]:
        console.say(sentence)
