"""``fedflair report``: reads run folders and sweep folders, and writes one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedflair.errors import UsageError
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console, table
from fedflair.system.files import write_atomically
from fedflair.system.terminal import say


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
    # Here, as what tells of a run's noise takes two seconds to load.
    from fedflair.report.data import read_groups, summaries
    from fedflair.report.findings import findings, rule_of
    from fedflair.report.page import page
    from fedflair.report.table import HEADINGS, NOISE, cells, notes, promised

    groups = read_groups(runs)
    found, below = findings(groups), notes(groups)
    write_atomically(output, page(groups, found, below, photos=not no_photos))
    if json:
        say(dumps(summaries(groups)))
        return
    rows = [dict(zip(HEADINGS, cells(group))) for group in groups]
    noise = [NOISE] if any(row[NOISE] != "-" for row in rows) else []
    _show(
        [f"{found.headline}.", *found.sentences, *rule_of(found)],
        ("run", "rounds", "epsilon", *noise, "macro AP", "micro AP", "minutes"),
        rows,
        [*promised(groups), *below, f"report: {output}"],
    )


def _show(
    above: Sequence[str], headings: Sequence[str], rows: Sequence[Mapping[str, str]], below: Sequence[str]
) -> None:
    console = Console()
    for sentence in above:
        console.say(sentence)
    shown = [[row[heading] for heading in headings] for row in rows]
    console.print(table("Test partition, best model on val", headings, shown, wrapped=[headings.index("epsilon")]))
    for sentence in below:
        console.say(sentence)
