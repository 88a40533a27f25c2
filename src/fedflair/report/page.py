"""The report's page: one self-contained HTML file, light or dark as the reader likes, every text of a run escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from fedflair.report.data import Group, Run, label_means
from fedflair.report.plots import COLOURS, curve_plot, gain_plot, label_plot, user_plot
from fedflair.runs.environment import lines_of
from fedflair.sweep.results import plus_minus, spread
from fedflair.system.terminal import cell, printable

CURVES = {"val/macro_ap": "macro AP on val", "val/micro_ap": "micro AP on val", "train/loss": "loss of local training"}
MOST_DRAWN = len(COLOURS)
MOST_LABELS, SHOWN_LABELS = 60, 25
COSTS: dict[str, tuple[Callable[[Run], float | None], float, str]] = {
    "minutes": (lambda run: run.seconds, 60, ".1f"),
    "images trained on": (lambda run: run.total("train/num_examples"), 1, ",.0f"),
    "MB up": (lambda run: run.total("train/bytes_up"), 1e6, ",.1f"),
    "MB down": (lambda run: run.total("train/bytes_down"), 1e6, ",.1f"),
    "simulated hours": (lambda run: run.total("train/simulated_seconds"), 3600, ",.2f"),
}


def page(groups: Sequence[Group], headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """The whole page. headings, rows: the table of scores, a row a group."""
    drawn = groups[:MOST_DRAWN]
    uncovered = "; not covered by epsilon" if any(run.is_private for group in groups for run in group.runs) else ""
    sections = [
        _table(headings, rows),
        f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>",
        _section("Learning curves", _legend(drawn, len(groups)), _curves(drawn, uncovered)),
        _section("Labels", _legend(drawn, len(groups)), _labels(drawn, uncovered)),
        _section("Users", _legend(drawn, len(groups)), _users(drawn, uncovered)),
        f"<h2>Cost of a run</h2>{_table(*_costs(groups))}",
        f"<h2>Options</h2>{''.join(map(_options, groups))}",
        _environments([run for group in groups for run in group.runs if run.environment]),
    ]
    return _PAGE.replace("$CONTENT", "\n".join(section for section in sections if section))


def _text(text: str) -> str:
    """Text of a run, as it is shown in an element: nothing in it is markup, invisible, or impossible in a file."""
    return html.escape(printable(text))


def _section(title: str, legend: str, figures: Sequence[tuple[str, str | None]]) -> str:
    shown = [(caption, figure) for caption, figure in figures if figure is not None]
    if not shown:
        return ""
    drawn = "".join(f"<figure>{figure}<figcaption>{_text(caption)}</figcaption></figure>" for caption, figure in shown)
    return f'<h2>{_text(title)}</h2>{legend}<div class="figures">{drawn}</div>'


def _curves(groups: Sequence[Group], uncovered: str) -> list[tuple[str, str | None]]:
    prevalences = [row["val/mean_prevalence"] for g in groups for run in g.runs for row in run.rows if _has(row)]
    band = "; bands: one standard deviation over seeds" if any(len(group.runs) > 1 for group in groups) else ""
    return [
        (
            f"{title} by round{band}{uncovered}",
            curve_plot(
                groups, column, title, prevalences[-1] if column == "val/macro_ap" and len(prevalences) else None
            ),
        )
        for column, title in CURVES.items()
    ]


def _has(row: object) -> bool:
    return isinstance(row, dict) and row.get("val/mean_prevalence") is not None


def _labels(groups: Sequence[Group], uncovered: str) -> list[tuple[str, str | None]]:
    """All labels, best first; of many the best and the worst. Ordered by the mean over the groups."""
    found = [means for means in map(label_means, groups) if means]
    names = {name for means in found for name in means}
    order = sorted(names, key=lambda name: (-sum(means.get(name, 0.0) for means in found), name))
    if not order:
        return []
    if len(order) <= MOST_LABELS:
        return [(f"AP of each label on test{uncovered}", label_plot(groups, order))]
    best, worst = order[:SHOWN_LABELS], order[-SHOWN_LABELS:]
    of = f"of the {len(order):,} labels with positives on test{uncovered}"
    return [
        (f"the {SHOWN_LABELS} best {of}", label_plot(groups, best)),
        (f"the {SHOWN_LABELS} worst {of}", label_plot(groups, worst)),
    ]


def _users(groups: Sequence[Group], uncovered: str) -> list[tuple[str, str | None]]:
    partitions = sorted({partition for group in groups for run in group.runs for partition in run.users})
    return [
        figure
        for partition in partitions
        for figure in (
            (f"AP of the users of {partition}, dotted: mean{uncovered}", user_plot(groups, partition)),
            (f"gain of the users of {partition} by personalisation{uncovered}", gain_plot(groups, partition)),
        )
    ]


def _costs(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Mean of each cost over a group's runs; a cost that no run has is left out."""
    columns = {name: [group.values(of) for group in groups] for name, (of, _, _) in COSTS.items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    rows = []
    for position, group in enumerate(groups):
        cells = []
        for name, column in columns.items():
            _, unit, digits = COSTS[name]
            values = [value / unit for value in column[position]]
            cells.append(plus_minus(spread(values if len(set(values)) > 1 else values[:1]), digits))
        devices = sorted({str((run.summary or {}).get("device", "-")) for run in group.runs})
        rows.append([group.name, *cells, ", ".join(devices)])
    return ["run", *columns, "device"], rows


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose rows are groups: numbers right, words left, the group's colour before its name."""
    words = {"run", "setting", "device"}
    classes = ["w" if heading in words else "n" for heading in headings]
    header = "".join(f'<th class="{kind}">{_text(name)}</th>' for kind, name in zip(classes, headings))
    body = ""
    for position, row in enumerate(rows):
        cells = [f'<td class="{kind}">{_text(text)}</td>' for kind, text in zip(classes, row)]
        body += f"<tr><td>{_swatch(position)}</td>{''.join(cells)}</tr>\n"
    return f'<div class="wide"><table><thead><tr><th></th>{header}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _swatch(position: int) -> str:
    if position >= MOST_DRAWN:
        return ""
    return f'<span class="swatch" style="background:{COLOURS[position]}"></span>'


def _legend(drawn: Sequence[Group], num_groups: int) -> str:
    items = "".join(f"<li>{_swatch(k)} {_text(group.name)}</li>" for k, group in enumerate(drawn))
    more = f"<li>the first {len(drawn)} of {num_groups} are drawn</li>" if num_groups > len(drawn) else ""
    return f'<ul class="legend">{items}{more}</ul>'


def _options(group: Group) -> str:
    options = dict(group.runs[0].options)
    if len(group.runs) > 1:
        options["seed"] = ", ".join(str(run.options.get("seed")) for run in group.runs)
    text = "\n".join(f"{name}: {value}" for name, value in options.items())
    return f"<details><summary>{_text(group.name)}</summary><pre>{_text(text)}</pre></details>"


def _environments(runs: Sequence[Run]) -> str:
    """What made each run: command, commit, versions, machine; a run that was gone on with has several entries."""
    shown = ""
    for run in runs:
        # No word of a command begins a line that is not its own.
        texts = ["\n".join(map(cell, lines_of(entry))) for entry in run.environment]
        entries = [f"<pre>{_text(text)}</pre>" for text in texts]
        times = f", in {len(entries)} goes" if len(entries) > 1 else ""
        shown += f"<details><summary>{_text(run.name)}{times}</summary>{''.join(entries)}</details>"
    return f"<h2>What made the runs</h2>{shown}" if shown else ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>fedflair: runs compared</title>
<style>
:root { --ink: #1b1b1b; --paper: #fff; --faint: #5c5c5c; --line: #dcdcdc; --box: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --paper: #161616; --faint: #a8a8a8; --line: #3a3a3a; --box: #222; }
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); }
.w { text-align: left; } .n { text-align: right; }
.swatch { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; margin: .3rem 0 .8rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
figure { margin: 0; flex: 1 1 24rem; max-width: 40rem; }
figure svg { width: 100%; height: auto; } figure svg text { font-family: system-ui, sans-serif !important; }
figcaption { text-align: center; color: var(--faint); font-size: .9rem; }
details { margin: .3rem 0; }
pre { background: var(--box); padding: 1rem; overflow-x: auto; font-size: .85rem; }
</style>
</head>
<body>
<h1>FLAIR: runs compared</h1>
<p>Scores on the test partition, with the model that was best on val.</p>
$CONTENT
</body>
</html>
"""
