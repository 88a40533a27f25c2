"""``fedflair report``: reads run folders and sweep folders only, and writes one self-contained HTML page."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedflair.errors import ConfigError
from fedflair.privacy.ledger import coverage
from fedflair.report.data import Group, read_groups
from fedflair.report.page import page
from fedflair.runs.folder import write_atomically
from fedflair.runs.json_text import strict
from fedflair.sweep.results import plus_minus, spread, words_of

METRICS = ("macro_ap", "micro_ap", "macro_f1", "loss")
HEADINGS = ("run", "setting", "rounds", "epsilon", *map(words_of, METRICS), "mean prevalence", "minutes")
ON_TERMINAL = ("run", "rounds", "epsilon", "macro AP", "micro AP", "minutes")


def report(*runs: Path, output: Path = Path("report.html"), json: bool = False) -> None:
    """Compare runs: a table here, and a page with curves, labels, users and costs.

    Args:
        runs: Run folders and sweep folders.
        output: The HTML file to write.
        json: Print the runs' summaries as JSON.
    """
    if not runs:
        raise ConfigError("report: name at least one run folder")
    groups = read_groups(runs)
    rows = [cells(group) for group in groups]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page(groups, HEADINGS, rows, notes(groups)))
    if json:
        facts = [
            {"run": run.name, "group": group.name, **(run.summary or {"unfinished": True, "rounds": run.num_rounds})}
            for group in groups
            for run in group.runs
        ]
        print(json_format.dumps(strict(facts), allow_nan=False))
        return
    console = Console()
    table = Table(title="Test partition, best model on val", title_justify="left")
    for heading in ON_TERMINAL:
        first = heading == "run"
        table.add_column(heading, justify="left" if first else "right", no_wrap=not first, overflow="fold")
    for row in rows:
        table.add_row(*(text for heading, text in zip(HEADINGS, row) if heading in ON_TERMINAL))
    console.print(table)
    for note in notes(groups):
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {output}", highlight=False, soft_wrap=True)


def cells(group: Group) -> tuple[str, ...]:
    """The group's row of the table, as text, under ``HEADINGS``: of several runs mean ± standard deviation."""
    first = group.runs[0]
    epsilons = group.values(lambda run: run.privacy.get("epsilon"))
    epsilon = f"{max(epsilons):.3g}" if epsilons else "-"
    if any(run.privacy.get("simulated") for run in group.runs):
        epsilon += " *"
    return (
        group.name if len(group.runs) == 1 else f"{group.name} ({len(group.finished)} runs)",
        str(first.summary["setting"] if first.summary else _setting(group)),
        _rounds(group),
        epsilon,
        *(plus_minus(spread(group.test(metric))) for metric in METRICS),
        plus_minus(spread(group.test("mean_prevalence")[:1])),
        plus_minus(spread([seconds / 60 for seconds in group.values(lambda run: run.seconds)]), ".1f"),
    )


def notes(groups: Sequence[Group]) -> list[str]:
    """Sentences that must stand below the table."""
    found = [
        "AP of a model that knows nothing is the label's prevalence: compare macro AP with the mean prevalence.",
    ]
    for group in groups:
        for run in group.runs:
            if run.summary is None:
                found.append(
                    f"{run.name} has not ended: round {run.num_rounds:,} of {_planned(group)}; its scores are missing."
                )
        found += dict.fromkeys(
            f"{'* ' if privacy.get('simulated') else ''}{group.name}: {privacy['words']}"
            for run in group.finished
            for privacy in (run.privacy, (run.summary or {}).get("local_privacy"))
            if privacy and privacy.get("words")
        )
    names = ", ".join(group.name for group in groups if any(run.is_private for run in group.runs))
    if names:
        found.append(
            f"Not covered by epsilon: every score, loss, count and time shown here of {names}; they are computed "
            "without noise."
        )
        found.append(coverage.TUNING)
    return found


def _rounds(group: Group) -> str:
    counts = sorted({run.num_rounds for run in group.runs})
    text = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
    return text if len(group.finished) == len(group.runs) else f"{text} of {_planned(group)}"


def _planned(group: Group) -> str:
    return f"{group.runs[0].options.get('central_num_iterations', 0):,}"


def _setting(group: Group) -> str:
    options = group.runs[0].options
    mechanism = options.get("central_privacy_mechanism", "none")
    dataset = str(options.get("dataset", "-"))
    return dataset if mechanism == "none" else f"{dataset} + {mechanism}"
