"""The count of changes that the suite notices, on a package of one file with a test that overlooks one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PERF = Path(__file__).parents[1] / "perf"
SOURCE = '''"""Eggs."""


def enough(eggs: int) -> bool:
    """Whether it is time."""
    if eggs < 0:
        raise ValueError(f"{eggs} eggs")
    return eggs > 2
'''
TEST = """from egg.laying import enough


def test_many_are_enough_and_few_are_not():
    assert enough(9)
    assert not enough(2)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in {
        "src/egg/__init__.py": "",
        "src/egg/laying.py": SOURCE,
        "tests/test_laying.py": TEST,
        "tests/test_elsewhere.py": "def test_nothing():\n    raise AssertionError\n",
    }.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def mutate(checkout: Path, *options: str) -> str:
    """What the script prints."""
    command = [
        sys.executable, PERF / "mutate.py", "--checkout", checkout, "--package", "src/egg", "--rooms", "laying",
        "--prime", "", "--workers", "1", "--num", "100", "--folder", checkout.parent / "found",
        "--accepted", checkout.parent / "accepted.yaml", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(checkout: Path) -> dict[str, tuple[str, str | None]]:
    """By the changed line: (status, the test that noticed)."""
    rows = map(json.loads, (checkout.parent / "found" / "results.jsonl").read_text().splitlines())
    return {row["diff"].splitlines()[-1]: (row["status"], row["by"]) for row in rows}


def test_the_list_shows_each_change_as_a_diff(checkout: Path) -> None:
    listed = mutate(checkout, "--list").strip().split("\n\n")
    assert sorted(listed) == sorted(
        f"src/egg/laying.py:{line} {kind}\n{diff}"
        for line, kind, diff in (
            (6, "boundary", "-    if eggs < 0:\n+    if eggs <= 0:"),
            (6, "constant", "-    if eggs < 0:\n+    if eggs < 1:"),
            (7, "dropped raise", '-        raise ValueError(f"{eggs} eggs")\n+        pass'),
            (8, "boundary", "-    return eggs > 2\n+    return eggs >= 2"),
            (8, "constant", "-    return eggs > 2\n+    return eggs > 3"),
            (8, "returned value", "-    return eggs > 2\n+    return False"),
            (8, "returned value", "-    return eggs > 2\n+    return True"),
        )
    )
    assert not (checkout.parent / "found").exists()


def test_what_tests_notice_is_told_from_what_they_do_not(checkout: Path) -> None:
    before = everything(checkout)
    (checkout.parent / "accepted.yaml").write_text(
        "- file: src/egg/laying.py\n  kind: dropped raise\n  line: 'raise ValueError(f\"{eggs} eggs\")'\n"
        "  becomes: pass\n  reason: nobody lays fewer than none\n"
    )
    words = mutate(checkout)
    noticed, survived = ("noticed", "tests/test_laying.py::test_many_are_enough_and_few_are_not"), ("survived", None)
    assert results(checkout) == {
        "+    if eggs <= 0:": survived,
        "+    if eggs < 1:": survived,
        "+    return eggs >= 2": noticed,
        "+    return eggs > 3": survived,
        "+    return False": noticed,
        "+    return True": noticed,
    }
    assert words.splitlines()[-2:] == ["laying          3 of 6    50%", "all             3 of 6    50%"]
    assert "accepted: src/egg/laying.py:7 dropped raise: nobody lays fewer than none" in words
    assert "-    return eggs > 2\n+    return eggs > 3\n  survived 1 test files; 0 more not run" in words
    assert everything(checkout) == before

    # A better test, and a change that keeps it from ending.
    (checkout / "tests" / "test_laying.py").write_text(TEST + "\n\ndef test_three():\n    assert enough(3)\n")
    words = mutate(checkout, "--retry")
    assert words.count("tests/test_laying.py: ") == 1
    assert "tests/test_elsewhere.py: " not in words
    assert results(checkout)["+    return eggs > 3"] == ("noticed", "tests/test_laying.py::test_three")
    assert words.splitlines()[-1] == "all             4 of 6    67%"


def test_what_may_survive_is_told_with_its_reason() -> None:
    for entry in yaml.safe_load((PERF / "mutants_accepted.yaml").read_text()):
        assert list(entry) == ["file", "kind", "line", "becomes", "reason"]
        assert all(isinstance(text, str) and text for text in entry.values())
