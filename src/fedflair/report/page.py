"""The report's page: one self-contained HTML file, which says first what one sees, and then what it was seen in."""

from __future__ import annotations

from collections.abc import Sequence

from fedflair.report import markup, sections, style
from fedflair.report.data import Group
from fedflair.report.findings import Findings, metric_of, rule_of
from fedflair.report.photographs import photographs
from fedflair.report.plots import COLOURS


def page(groups: Sequence[Group], found: Findings, notes: Sequence[str], *, photos: bool = True) -> str:
    """The whole page. found: its first lines. notes: what must stand below the scores.

    photos: whether photographs of test are shown, from the runs' stores.
    """
    drawn = groups[: len(COLOURS)]
    uncovered = "; not covered by epsilon" if any(run.is_private for group in groups for run in group.runs) else ""
    parts = [
        f'<div class="findings">{markup.items(found.sentences)}</div>' if found.sentences else "",
        markup.paragraphs(rule_of(found), "faint"),
        sections.what_differs(groups),
        sections.scores(groups),
        markup.items(notes),
        sections.curves(drawn, metric_of(groups), uncovered),
        sections.labels(drawn, uncovered),
        sections.users(drawn, uncovered),
        markup.section("Photographs of test in which each model is surest", photographs(drawn)) if photos else "",
        sections.costs(groups),
        sections.privacy(groups),
        sections.environments(groups),
        sections.options(groups),
    ]
    return style.whole(found.headline, "\n".join(part for part in parts if part))
