"""The page: what is drawn of many runs, and where the mean prevalence is marked."""

from __future__ import annotations

import re
from pathlib import Path

from fedflair.report.data import read_groups
from fedflair.report.page import MOST_DRAWN, page
from fedflair.report.plots import COLOURS
from fedflair.report.table import HEADINGS, cells
from tests.report.folders import write_run


def made(paths: list[Path]) -> str:
    groups = read_groups(paths)
    return page(groups, HEADINGS, [cells(group) for group in groups], [])


def figures(text: str) -> dict[str, str]:
    """Figures by the beginning of their captions."""
    found = re.findall(r"<figure>(.*?)<figcaption>(.*?)</figcaption></figure>", text, re.DOTALL)
    return {caption: figure for figure, caption in found}


def test_no_more_runs_are_drawn_than_there_are_colours_and_all_are_listed(tmp_path: Path) -> None:
    assert len(COLOURS) == MOST_DRAWN
    text = made([write_run(tmp_path / f"run-{k:02d}", 0.3 + k / 100) for k in range(MOST_DRAWN + 2)])
    first = text.index("Learning curves")
    table, rest = text[:first], text[first : text.index("Cost of a run")]
    for k in range(MOST_DRAWN + 2):
        assert f"run-{k:02d}" in table
        # The legend names those that are drawn.
        assert (f"run-{k:02d}" in rest) == (k < MOST_DRAWN)


def test_the_mean_prevalence_is_marked_where_macro_ap_is_drawn_and_nowhere_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.61)
    drawn = figures(made([run]))
    marked = {caption for caption, figure in drawn.items() if "mean prevalence" in figure}
    assert len(drawn) > 2
    assert {caption.split(" by round")[0] for caption in marked} == {"macro AP on val"}
    # A run without it, as one of an earlier version is, has no mark.
    rows = (run / "metrics.jsonl").read_text().replace('"val/mean_prevalence": 0.2, ', "")
    (run / "metrics.jsonl").write_text(rows)
    assert not any("mean prevalence" in figure for figure in figures(made([run])).values())
