"""The page: what is drawn of many runs, where the mean prevalence is marked, and how it lies in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedflair.report.data import read_groups
from fedflair.report.findings import findings
from fedflair.report.markup import MOST_COLUMNS
from fedflair.report.page import page
from fedflair.report.plots import COLOURS, MARKERS
from fedflair.report.sections import what_differs
from tests.report.folders import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = "learning_rate=0.5,central_privacy_mechanism=gaussian_moments_accountant,local_num_epochs=2"


def made(paths: list[Path]) -> str:
    groups = read_groups(paths)
    return page(groups, findings(groups), [])


def figures(text: str) -> dict[str, str]:
    """Figures by the beginning of their captions."""
    found = re.findall(r"<figure>(.*?)<figcaption>(.*?)</figcaption></figure>", text, re.DOTALL)
    return {caption: figure for figure, caption in found}


def test_no_more_runs_are_drawn_than_there_are_colours_and_all_are_listed(tmp_path: Path) -> None:
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(COLOURS) == 10
    text = made([write_run(tmp_path / f"run-{k:02d}", 0.3 + k / 100) for k in range(12)])
    first = text.index("Learning curves")
    table, rest = text[text.index("Scores on test") : first], text[first : text.index("<h2>Cost")]
    for k in range(12):
        assert f"run-{k:02d}" in table
    # The title names the one that ends highest, and the legend those that are drawn.
    legends = "".join(re.findall(r'<ul class="legend">.*?</ul>', rest))
    for k in range(12):
        assert (f"run-{k:02d}" in legends) == (k < 10)
    assert "Learning curves: run-09 ends highest on val, at macro AP 0.390 after 2 rounds" in text


def test_the_mean_prevalence_is_marked_where_macro_ap_is_drawn_and_nowhere_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.61)
    drawn = figures(made([run]))
    marked = {caption: figure for caption, figure in drawn.items() if "mean prevalence" in figure}
    assert len(drawn) > 2
    assert {caption.split(" by round")[0] for caption in marked} == {"macro AP on val"}
    # In the page's ink, as what is black cannot be seen where the page is dark.
    assert re.search(r'<text style="[^"]*fill: currentColor[^"]*"[^>]*>mean prevalence', *marked.values())
    # A run without it, as one of an earlier version is, has no mark.
    rows = (run / "metrics.jsonl").read_text().replace('"val/mean_prevalence": 0.2, ', "")
    (run / "metrics.jsonl").write_text(rows)
    assert not any("mean prevalence" in figure for figure in figures(made([run])).values())


def test_rounds_have_whole_ticks(tmp_path: Path) -> None:
    """Of two rounds there were ticks at 1.25 and 1.5."""
    (figure,) = (f for caption, f in figures(made([write_run(tmp_path / "a", 0.6)])).items() if "macro AP" in caption)
    below = figure[figure.index('id="matplotlib.axis_1"') : figure.index('id="matplotlib.axis_2"')]
    ticks = re.findall(r"<text [^>]*>([^<]*)</text>", below)
    assert ticks == ["1", "2", "round"]


def test_what_differs_comes_before_the_scores_and_more_than_a_page_holds_is_stacked(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.5) for name in "ab"]
    for run, rate in zip(runs, (1, 2)):
        with (run / "config.yaml").open("a") as file:
            file.write(f"learning_rate: {rate}.0\n")
    text = made(runs)
    assert text.index("What differs") < text.index(">learning_<wbr>rate<") < text.index("Scores on test")
    assert ">cohort_" not in text[: text.index("Scores on test")]
    assert 'class="blocks"' not in what_differs(read_groups(runs))
    for run, value in zip(runs, (1, 2)):
        with (run / "config.yaml").open("a") as file:
            file.write("".join(f"option_{k}: {value}\n" for k in range(MOST_COLUMNS)))
    assert 'class="blocks"' in what_differs(read_groups(runs))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser_nothing_is_wider_than_the_page_and_no_name_is_cut(tmp_path: Path, width: int) -> None:
    assert CHROMIUM
    labels = {"label " * 12 + str(k): 0.5 for k in range(3)}
    runs = [write_run(tmp_path / f"{LONG}{k}", 0.5 + k / 100, label_ap=labels) for k in range(10)]
    for k, run in enumerate(runs):
        options = {"learning_rate": f"{k}.5", "local_num_epochs": k + 1, "dataset": "flair", "algorithm_name": "fedavg"}
        with (run / "config.yaml").open("a") as file:
            file.write("".join(f"{name}: {value}\n" for name, value in options.items()))
    # The page has no script of its own; this one, and the leave for it, are the test's.
    measure = (
        "<script>const e = document.documentElement, o = [...document.querySelectorAll('table, th, td, p, li, h1, h2')]"
        ".filter(n => n.scrollWidth > n.clientWidth + 1 && n.clientWidth > 0).map(n => n.textContent.slice(0, 40));"
        "document.title = JSON.stringify([e.scrollWidth, e.clientWidth, innerWidth, o])</script>"
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", made(runs)).replace(
        "</body>", f"{measure}</body>"
    )
    (tmp_path / "page.html").write_text(text)
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --dump-dom"
    command = [CHROMIUM, *options.split(), f"--window-size={width},900", (tmp_path / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    (title,) = re.findall(r"<title>(.*?)</title>", dom)
    page_width, room, window, cut = json.loads(title.replace("&amp;", "&"))
    # Less the bar to scroll down with.
    assert width - 20 <= room <= window == width
    assert page_width == room
    assert cut == []
