"""The table of deviations in docs/privacy.md: whole, graded, and of things that there are."""

from __future__ import annotations

import re
from pathlib import Path

from fedflair.config.train_config import NAMES
from fedflair.privacy.ledger.coverage import FIELD, SUMMARY, uncovered
from fedflair.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
COLUMNS = ["train/loss", "train/seconds", "train_before/loss", "train_after/loss", "val/loss"]


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "privacy.md").read_text()
    section = text.split("## Deviations from the proofs, graded\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_deviation_has_a_grade_an_exploit_and_what_holds_it() -> None:
    assert len(rows()) > 30
    for deviation, grade, exploit, held in rows():
        assert re.fullmatch("(high|medium|low|none)(, by definition)?", grade), deviation
        assert len(exploit) > 15 and len(held) > 5, deviation
    assert len({row[0] for row in rows()}) == len(rows())


def test_tests_that_hold_one_are_there() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = [name for row in rows() for name in re.findall(r"`(test_\w+)`", row[3])]
    assert len(named) > 15
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_names_are_of_options_files_columns_and_facts_that_there_are() -> None:
    folder = RunFolder(Path("run"))
    paths = (folder.last, folder.previous, folder.failures, folder.provenance, folder.label_ap, folder.test_details)
    files = {path.name for path in paths}
    known = {*NAMES, *files, *SUMMARY, FIELD, *COLUMNS, "environment.json", "privacy_ledger.jsonl"}
    # Of summaries, of the store and of a private run's words.
    known |= {"epsilon", "run_epsilon", "person", "infinite", "zero_out", "fingerprint", "train_before", "train_after"}
    said = {name for row in rows() for name in re.findall(r"`([^`]+)`", " | ".join(row))}
    said -= {name for name in said if name.startswith(("test_", "fedflair ", "ledger ", "dataset: "))}
    assert said - known == set()


def test_all_that_a_run_marks_as_not_covered_is_in_it() -> None:
    text = " ".join(" ".join(row) for row in rows())
    assert uncovered(COLUMNS) == COLUMNS
    for name in [*SUMMARY, "train/loss", "train/seconds", "train_before", "train_after"]:
        assert f"`{name}`" in text, name
    assert all(name in text for name in ("noise_from_seed", "allow_large_delta", "noise_cohort_size", "population"))
