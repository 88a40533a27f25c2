"""The sections of the page, each with a title that says what it shows; markup, or nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from fedflair.privacy.accounting import shown
from fedflair.report import differences, markup, table
from fedflair.report.data import Group, Run, curve, label_means, numbers
from fedflair.report.plots import (
    COLOURS,
    MOST_HISTOGRAMS,
    curve_plot,
    gain_plot,
    label_plot,
    rank_plot,
    user_gain,
    user_plot,
)
from fedflair.runs.environment import Entry, lines_of
from fedflair.sweep.results import plus_minus, spread, words_of
from fedflair.system.html_page import text
from fedflair.system.terminal import cell

MOST_LABELS, SHOWN_LABELS = 60, 25
_COSTS: dict[str, tuple[Callable[[Run], float | None], float, str]] = {
    "minutes": (lambda run: run.seconds, 60, ".1f"),
    "images trained on": (lambda run: run.total("train/num_examples"), 1, ",.0f"),
    "MB up": (lambda run: run.total("train/bytes_up"), 1e6, ",.1f"),
    "MB down": (lambda run: run.total("train/bytes_down"), 1e6, ",.1f"),
    "simulated hours": (lambda run: run.total("train/simulated_seconds"), 3600, ",.2f"),
}
# What of an environment is worth a column of its own, as (heading, path).
_MADE = {
    "commit": ("git", "commit"),
    "fedflair": ("versions", "fedflair"),
    "torch": ("versions", "torch"),
    "processor": ("processor", "name"),
    "GPU": ("gpu", "name"),
    "device": ("computes", "device"),
    "threads": ("computes", "threads"),
    "kernels": ("computes", "kernels"),
    "store": ("store", "fingerprint"),
}


def what_differs(groups: Sequence[Group]) -> str:
    """Only the options that differ; what is the same in all is not repeated."""
    if len(groups) < 2:
        return ""
    headings, rows = differences.table(groups)
    if len(headings) == 1:
        return markup.section("The runs have the same options", "<p></p>")
    return markup.section("What differs between the runs", markup.table(headings, rows, words=headings))


def scores(groups: Sequence[Group]) -> str:
    rows = [table.cells(group) for group in groups]
    kept = [
        k for k, heading in enumerate(table.HEADINGS) if heading != table.NOISE or {row[k] for row in rows} != {"-"}
    ]
    headings = [table.HEADINGS[k] for k in kept]
    shown_rows = [[row[k] for k in kept] for row in rows]
    note = markup.paragraphs(["Means ± standard deviations over seeds."], "faint") if _several(groups) else ""
    return markup.section(
        "Scores on test, with each run's model that was best on val", markup.table(headings, shown_rows), note
    )


def curves(groups: Sequence[Group], metric: str, uncovered: str) -> str:
    titles = {f"val/{m}": f"{words_of(m)} on val" for m in ("macro_ap", "micro_ap")} | {"train/loss": "training loss"}
    prevalences = [row["val/mean_prevalence"] for g in groups for run in g.runs for row in run.rows if _has(row)]
    band = "; bands: one standard deviation over seeds" if _several(groups) else ""
    drawn = [
        (
            f"{title} by round{band}{uncovered}",
            curve_plot(groups, column, title, prevalences[-1] if column == "val/macro_ap" and prevalences else None),
        )
        for column, title in titles.items()
    ]
    ends = [
        (means[-1], rounds[-1], g.name) for g in groups for rounds, means, _ in [curve(g, f"val/{metric}")] if rounds
    ]
    title = "Learning curves"
    if ends:
        value, round_, name = max(ends)
        title += f": {name} ends highest on val" if len(ends) > 1 else f": {name} ends on val"
        title += f", at {words_of(metric)} {value:.3f} after {round_:,.0f} rounds"
    return _drawn(title, groups, drawn, again=False)


def labels(groups: Sequence[Group], uncovered: str) -> str:
    """All labels, best first; of many how AP falls, the best and the worst. Ordered by the mean over the groups."""
    found = [means for means in map(label_means, groups[: len(COLOURS)]) if means]
    names = {name for means in found for name in means}
    mean = {name: fmean([means[name] for means in found if name in means]) for name in names}
    order = sorted(names, key=lambda name: (-mean[name], name))
    if not order:
        return ""
    title = "Labels"
    if len(order) > 1:
        title += f": from {_cut(order[0])} ({mean[order[0]]:.2f}) down to {_cut(order[-1])} ({mean[order[-1]]:.2f})"
        title += ", mean AP of the runs" if len(found) > 1 else ""
    if len(order) <= MOST_LABELS:
        drawn = [(f"AP of each label on test{uncovered}", label_plot(groups, order))]
    else:
        best, worst = order[:SHOWN_LABELS], order[-SHOWN_LABELS:]
        of = f"of the {len(order):,} labels with positives on test{uncovered}"
        drawn = [
            (f"AP {of}; half of them are below {median(mean.values()):.3f}", rank_plot(groups)),
            (f"the {SHOWN_LABELS} best {of}", label_plot(groups, best)),
            (f"the {SHOWN_LABELS} worst {of}", label_plot(groups, worst)),
        ]
    return _drawn(title, groups, drawn)


def users(groups: Sequence[Group], uncovered: str) -> str:
    partitions = sorted({partition for group in groups for run in group.runs for partition in run.users})
    drawn, told = [], []
    for partition in partitions:
        dotted = (
            ""
            if sum(partition in run.users for g in groups for run in g.runs[:1]) > MOST_HISTOGRAMS
            else ", dotted: mean"
        )
        drawn += [
            (f"AP of the users of {partition}{dotted}{uncovered}", user_plot(groups, partition)),
            (f"gain of the users of {partition} by personalisation{uncovered}", gain_plot(groups, partition)),
        ]
        rows = [[row for run in group.runs for row in run.users.get(partition, ())] for group in groups]
        aps = [numbers(row.get("micro_ap") for row in of_group) for of_group in rows]
        if middle := [median(values) for values in aps if values]:
            told.append(f"half of those of {partition} have AP above {_span(middle, '.3f')}")
        gains = [numbers(map(user_gain, of_group)) for of_group in rows]
        if better := [sum(gain > 0 for gain in values) / len(values) for values in gains if values]:
            told.append(f"personalisation betters {_span(better, '.0%')} of them")
    return _drawn(f"Users: {', '.join(told)}" if told else "Users", groups, drawn)


def costs(groups: Sequence[Group]) -> str:
    """Mean of each cost over a group's runs; a cost that no run has is left out."""
    columns = {name: [group.values(of) for group in groups] for name, (of, _, _) in _COSTS.items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    rows = []
    for position, group in enumerate(groups):
        cells = []
        for name, column in columns.items():
            _, unit, digits = _COSTS[name]
            values = [value / unit for value in column[position]]
            cells.append(plus_minus(spread(values if len(set(values)) > 1 else values[:1]), digits))
        devices = sorted({str((run.summary or {}).get("device", "-")) for run in group.runs})
        rows.append([group.name, *cells, ", ".join(devices)])
    whole = sum(run.seconds for group in groups for run in group.runs) / 60
    title = f"Cost: {whole:,.1f} minutes in all" if any(len(g.runs) > 1 for g in groups) or len(groups) > 1 else "Cost"
    return markup.section(title, markup.table(["run", *columns, "device"], rows, words=["device"]))


def privacy(groups: Sequence[Group]) -> str:
    """A row for each group that promises an epsilon, and what its mechanism says of itself."""
    rows, kept = [], 0
    private = [group for group in groups if any(run.is_private for run in group.runs)]
    for group in private:
        central, local = table.promises(group)
        facts: Mapping[str, Any] = central or {}
        kept += central is not None and shown.figures(central)[1] <= shown.PROTECTS_NOBODY
        rows.append(
            [
                group.name,
                str(facts.get("mechanism", (local or {}).get("mechanism", "-"))),
                shown.cell(central, local),
                _figure((central or local or {}).get("delta")),
                _figure(facts.get("noise_multiplier")),
                table.noise_cell(group),
                _figure(facts.get("population")),
                _figure(facts.get("users")),
            ]
        )
    if not rows:
        return ""
    title = (
        f"Privacy: {kept} of {len(rows)} private rows promises anything to the users trained on"
        if kept
        else "Privacy: nobody whose photographs were trained on is promised anything centrally"
    )
    headings = ["run", "mechanism", "epsilon", "delta", "noise multiplier", table.NOISE, "population", "users"]
    told = markup.items(table.promised(groups))
    return markup.section(title, markup.table(headings, rows, words=["mechanism"], marked=False), told)


def environments(groups: Sequence[Group]) -> str:
    """What made the runs: what is the same of all in a line each, what differs in a table, all of it folded."""
    runs = [run for group in groups for run in group.runs if run.environment]
    if not runs:
        return ""
    values = {name: [_at(run.environment[-1], path) for run in runs] for name, path in _MADE.items()}
    same = {name: found[0] for name, found in values.items() if len(set(found)) == 1 and found[0] != "-"}
    differ = [name for name, found in values.items() if len(set(found)) > 1]
    title = "What made the runs: " + (f"they differ in {', '.join(differ)}" if differ else "all alike")
    lines = "".join(f"<dt>{text(k)}</dt><dd>{markup.name(v)}</dd>" for k, v in same.items())
    rows = [[run.name, *(values[name][k] for name in differ)] for k, run in enumerate(runs)]
    unlike = markup.table(["run", *differ], rows, words=differ, marked=False) if differ else ""
    return markup.section(
        title if len(runs) > 1 else "What made the run", f"<dl>{lines}</dl>", unlike, *map(_environment, runs)
    )


def options(groups: Sequence[Group]) -> str:
    return markup.section("All options", *map(_options, groups))


def _drawn(title: str, groups: Sequence[Group], drawn: Sequence[tuple[str, str | None]], *, again: bool = True) -> str:
    figures = markup.figures(drawn)
    names = [group.name for group in groups]
    return markup.section(title, markup.legend(names, again=again), figures) if figures else ""


def _span(values: Sequence[float], digits: str) -> str:
    low, high = f"{min(values):{digits}}", f"{max(values):{digits}}"
    return low if low == high else f"{low} to {high} (by run)"


def _several(groups: Sequence[Group]) -> bool:
    return any(len(group.runs) > 1 for group in groups)


def _has(row: object) -> bool:
    return isinstance(row, dict) and row.get("val/mean_prevalence") is not None


def _cut(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _at(entry: Entry, path: Sequence[str]) -> str:
    value: Any = entry
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "-" if value is None else str(value)


def _environment(run: Run) -> str:
    # No word of a command begins a line that is not its own.
    texts = ["\n".join(map(cell, lines_of(entry))) for entry in run.environment]
    times = f", in {len(texts)} goes" if len(texts) > 1 else ""
    return markup.details(f"{run.name}{times}", "".join(map(markup.block, texts)))


def _options(group: Group) -> str:
    found = dict(group.runs[0].options)
    if len(group.runs) > 1:
        found["seed"] = ", ".join(str(run.options.get("seed")) for run in group.runs)
    return markup.details(group.name, markup.block("\n".join(f"{name}: {value}" for name, value in found.items())))
