"""``fedflair report``: the page, the table and the JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedflair.commands.report import report
from tests.report.folders import write_run, write_sweep


class Texts(HTMLParser):
    """The visible texts of a page, and whatever would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fetched: list[str] = []

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object") or any(name == "src" for name, _ in attrs):
            self.fetched.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("href", "xlink:href") and not str(v).startswith("#")]


def parsed(path: Path) -> Texts:
    texts = Texts()
    texts.feed(path.read_text())
    return texts


def test_the_page_holds_the_tables_the_figures_and_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy = {"epsilon": 2.5, "delta": 1e-5, "simulated": True, "words": "a simulation of <5000> users"}
    runs = [write_run(tmp_path / "a", 0.61), write_run(tmp_path / "<i>b", 0.52, privacy)]
    rows = [{"num_images": 3, "micro_ap": 0.4}, {"num_images": 1, "micro_ap": None}]
    rows[0] |= {"global": {"micro_ap": 0.4}, "personalised": {"micro_ap": 0.5}}
    (runs[0] / "per_user_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out" / "report.html"
    report(*runs, output=output)
    text, page = output.read_text(), parsed(output)
    assert page.fetched == []
    # Curves of macro AP and of the loss, labels, users, and users' gain; no run has micro AP on val.
    assert text.count("<svg") == 5
    assert {
        "0.610",
        "2.5 * (run infinite)",
        "AP of each label on test; not covered by epsilon",
        "Labels: from animal (0.67) down to food (0.47), mean AP of the runs",
        "Users: half of those of test have AP above 0.400, personalisation betters 100% of them",
        "animal",
        "food",
    } <= set(page.texts)
    assert "music" not in page.texts
    assert {"minutes", "images trained on", "20", "MB up", "4.0", "simulated hours", "1.00"} <= set(page.texts)
    assert "MB down" not in page.texts
    assert "* <i>b: a simulation of <5000> users" in page.texts
    assert any(words.startswith("Not covered by epsilon") for words in page.texts)
    # Nowhere without the star that calls it simulated.
    assert "2.5" not in page.texts
    assert "<i>b" not in text
    assert "<b>bold" not in text
    printed = capsys.readouterr().out
    assert "0.610" in printed
    assert "a simulation" in printed


def test_a_sweep_s_runs_as_json_and_their_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sweep(tmp_path / "sweep")
    report(folder, output=tmp_path / "report.html", json=True)
    facts = json.loads(capsys.readouterr().out)
    assert [(run["run"], run["group"], run["test"]["macro_ap"]) for run in facts] == [
        ("rate=1, seed 0", "rate=1", 0.5),
        ("rate=1, seed 1", "rate=1", 0.7),
    ]
    assert "bands: one standard deviation over seeds" in (tmp_path / "report.html").read_text()


def test_an_unfinished_run_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, stopped = write_run(tmp_path / "done", 0.61), write_run(tmp_path / "stopped", 0.5)
    (stopped / "summary.json").unlink()
    (stopped / "metrics.jsonl").write_text((stopped / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    report(done, stopped, output=tmp_path / "report.html")
    assert {"1 of 2", "0.610"} <= set(parsed(tmp_path / "report.html").texts)
    printed = capsys.readouterr().out
    assert "stopped has not ended: round 1 of 2; its scores are missing." in printed
    report(done, stopped, output=tmp_path / "report.html", json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts[1] == {"run": "stopped", "group": "stopped", "unfinished": True, "rounds": 1}


def test_many_labels_show_the_best_and_the_worst(tmp_path: Path) -> None:
    label_ap = {f"label {k}": k / 1628 for k in range(1628)}
    report(write_run(tmp_path / "fine", 0.2, label_ap=label_ap), output=tmp_path / "report.html")
    page = parsed(tmp_path / "report.html")
    shown = {text for text in page.texts if text.startswith("label ")}
    assert shown == {f"label {k}" for k in (*range(25), *range(1603, 1628))}
    assert "the 25 best of the 1,628 labels with positives on test" in page.texts
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.61)
    report(run, output=tmp_path / "one.html")
    report(run, output=tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
