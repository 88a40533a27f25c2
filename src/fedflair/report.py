"""``fedflair report``: reads run folders only, and writes one self-contained HTML page."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedflair.errors import ConfigError, DataError
from fedflair.privacy import coverage
from fedflair.tracking import RunFolder, read_config, read_rows, read_summary, write_atomically

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
CURVES = {"val/macro_ap": "macro AP on val", "val/micro_ap": "micro AP on val", "train/loss": "loss of local training"}
HEADINGS = (
    "run",
    "setting",
    "rounds",
    "macro AP",
    "micro AP",
    "macro F1",
    "loss",
    "mean prevalence",
    "epsilon",
    "minutes",
)


@dataclass(frozen=True)
class Run:
    """What the report knows of a run: all of it read from its folder."""

    name: str
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]


def report(*runs: Path, output: Path = Path("report.html"), json: bool = False) -> None:
    """Compare finished runs: a table here, and a page with the table and the learning curves.

    Args:
        runs: Run folders.
        output: The HTML file to write.
        json: Print the table as JSON.
    """
    if not runs:
        raise ConfigError("report: name at least one run folder")
    loaded = [read_run(path) for path in runs]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page(loaded))
    if json:
        import json as json_format

        print(json_format.dumps([{"run": run.name, **run.summary} for run in loaded]))
        return
    console = Console()
    table = Table(title="Test partition, best model on val", title_justify="left")
    for heading in HEADINGS:
        table.add_column(
            heading, justify="left" if heading in ("run", "setting") else "right", no_wrap=heading == "run"
        )
    for run in loaded:
        table.add_row(*cells(run))
    console.print(table)
    for note in notes(loaded):
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {output}", highlight=False, soft_wrap=True)


def read_run(path: Path) -> Run:
    """Reads one run folder. Raises DataError where it is none, or the run has not ended."""
    if not path.is_dir():
        raise DataError(f"{path}: no such run folder; name folders that 'fedflair train' wrote")
    folder = RunFolder(path)
    return Run(path.name, read_summary(folder), read_rows(folder), read_config(folder))


def cells(run: Run) -> tuple[str, ...]:
    """The run's row of the table, as text, under ``HEADINGS``."""
    test, privacy = run.summary["test"], run.summary["privacy"]
    epsilon = "-" if privacy is None or privacy.get("epsilon") is None else f"{privacy['epsilon']:.3g}"
    if privacy is not None and privacy.get("simulated"):
        epsilon += " *"
    return (
        run.name,
        str(run.summary["setting"]),
        f"{run.summary['rounds']:,}",
        f"{test['macro_ap']:.3f}",
        f"{test['micro_ap']:.3f}",
        f"{test['macro_f1']:.3f}",
        f"{test['loss']:.3f}",
        f"{test['mean_prevalence']:.3f}",
        epsilon,
        f"{run.summary['seconds'] / 60:.1f}",
    )


def notes(runs: Sequence[Run]) -> list[str]:
    """Sentences that must stand below the table."""
    found = [
        "AP of a model that knows nothing is the label's prevalence: compare macro AP with the mean prevalence.",
    ]
    for run in runs:
        for privacy in (run.summary["privacy"], run.summary.get("local_privacy")):
            if privacy is not None and privacy.get("words"):
                star = "* " if privacy.get("simulated") else ""
                found.append(f"{star}{run.name}: {privacy['words']}")
    names = ", ".join(run.name for run in runs if is_private(run))
    if names:
        found.append(
            f"Not covered by epsilon: every score, loss, count and time shown here of {names}; they are computed "
            "without noise."
        )
        found.append(coverage.TUNING)
    return found


def is_private(run: Run) -> bool:
    """Whether an epsilon is promised, which the run's metrics are then not covered by."""
    return coverage.is_promised(run.summary["privacy"], run.summary.get("local_privacy"))


def page(runs: Sequence[Run]) -> str:
    """The whole page as HTML; every text from a run is escaped and nothing is fetched from elsewhere."""
    header = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
    body = ""
    for position, run in enumerate(runs):
        colour = COLOURS[position % len(COLOURS)]
        columns = "".join(f"<td>{html.escape(text)}</td>" for text in cells(run))
        body += f'<tr><td class="swatch" style="background:{colour}"></td>{columns}</tr>\n'
    uncovered = "; not covered by epsilon" if any(is_private(run) for run in runs) else ""
    figures = "".join(
        f"<figure>{_curve(runs, name, title)}<figcaption>{html.escape(title)} by round{uncovered}</figcaption></figure>"
        for name, title in CURVES.items()
        if any(row.get(name) is not None for run in runs for row in run.rows)
    )
    remarks = "".join(f"<li>{html.escape(note)}</li>" for note in notes(runs))
    details = "".join(
        f"<details><summary>{html.escape(run.name)}: options</summary><pre>"
        + html.escape("\n".join(f"{k}: {v}" for k, v in run.options.items()))
        + "</pre></details>"
        for run in runs
    )
    return _PAGE.format(header=header, body=body, figures=figures, notes=remarks, details=details)


def _curve(runs: Sequence[Run], name: str, title: str) -> str:
    """One plot as inline SVG: a line a run."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for position, run in enumerate(runs):
        points = [(row["round"], row[name]) for row in run.rows if row.get(name) is not None]
        if points:
            rounds, values = zip(*points)
            marker = "o" if len(points) < 40 else None
            axes.plot(
                rounds, values, marker=marker, markersize=3, color=COLOURS[position % len(COLOURS)], label=run.name
            )
    if name == "val/macro_ap":
        prevalence = [row["val/mean_prevalence"] for row in runs[0].rows if "val/mean_prevalence" in row]
        if prevalence:
            axes.axhline(prevalence[-1], color="#999999", linestyle=":", label="mean prevalence")
    axes.set_xlabel("round")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    buffer = io.StringIO()
    # A fixed salt: otherwise the ids inside the SVG differ each time the same runs are drawn.
    with rc_context({"svg.hashsalt": "fedflair"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedflair: runs compared</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1a1a1a; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .55rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th:nth-child(-n+3), td:nth-child(-n+3) {{ text-align: left; }}
td.swatch {{ width: .4rem; padding: 0; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; flex: 1 1 26rem; max-width: 40rem; }} figure svg {{ width: 100%; height: auto; }}
figcaption {{ text-align: center; color: #555; font-size: .9rem; }}
pre {{ background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .85rem; }}
</style>
</head>
<body>
<h1>FLAIR: runs compared</h1>
<p>Scores on the test partition, with the model that was best on val.</p>
<div class="wide"><table>
<thead><tr><th></th>{header}</tr></thead>
<tbody>
{body}</tbody>
</table></div>
<ul>{notes}</ul>
<h2>Learning curves</h2>
<div class="figures">{figures}</div>
<h2>Options</h2>
{details}
</body>
</html>
"""
