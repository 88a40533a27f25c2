"""What `make help`, `make lint` and the hooks before a commit promise, they do."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("goal", [[], ["help"]], ids=["make", "make help"])
def test_help_lists_every_target_with_its_purpose(goal: list[str]) -> None:
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", str(ROOT), *goal], capture_output=True, text=True, check=True
    )
    promised = re.search(r"^\.PHONY: (.*)$", makefile(), re.MULTILINE)
    assert promised is not None
    listed = [re.fullmatch(r"make ([a-z]+) +(\S.*)", line) for line in done.stdout.splitlines()]
    assert [line.group(1) for line in listed if line] == promised.group(1).split()
    assert all(listed)


def test_the_hooks_run_what_lint_runs_by_the_environments_own_programs() -> None:
    (rules,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile(), re.MULTILINE)
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    linters = [hook["entry"] for hook in hooks if hook["id"] != "whitespace"]
    assert linters == [line.strip().replace("$(BIN)", ".venv/bin") for line in rules.splitlines()]


def test_every_name_that_vulture_may_pass_over_would_be_reported() -> None:
    tomllib = pytest.importorskip("tomllib")
    with (ROOT / "pyproject.toml").open("rb") as file:
        allowed = tomllib.load(file)["tool"]["vulture"]["ignore_names"]
    done = subprocess.run(
        [PROGRAMS / "vulture", "--ignore-names", "none"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    reported = set(re.findall(r"unused \w+ '(\w+)'", done.stdout))
    assert [name for name in allowed if not fnmatch.filter(reported, name)] == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package that may be spoilt."""
    shutil.copytree(ROOT / "src" / "fedflair", tmp_path / "fedflair", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def floors(house: Path) -> tuple[int, str]:
    """Exit status and words of lint-imports over the copy."""
    done = subprocess.run(
        [PROGRAMS / "lint-imports", "--no-logo", "--no-cache"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


UPWARD = {
    "at the top": "\nfrom fedflair.config.train_config import TrainConfig\n",
    "inside a function": "\ndef late():\n    import fedflair.config.train_config\n",
    "for types only": (
        "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    from fedflair.config.train_config import TrainConfig\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", UPWARD)
def test_lint_refuses_an_import_of_a_room_above(house: Path, how: str) -> None:
    climb = "fedflair.errors -> fedflair.config.train_config"
    assert climb not in floors(house)[1]
    with (house / "fedflair" / "errors.py").open("a") as file:
        file.write(UPWARD[how])
    status, words = floors(house)
    assert status == 1
    assert "A room imports only rooms below it BROKEN" in words
    assert climb in words


def test_lint_refuses_two_files_that_import_each_other(house: Path) -> None:
    metrics = house / "fedflair" / "metrics"
    (metrics / "egg.py").write_text("def lay():\n    from fedflair.metrics.hen import hatch\n")
    assert ".egg -> .hen" not in floors(house)[1]
    (metrics / "hen.py").write_text("def hatch():\n    from fedflair.metrics.egg import lay\n")
    status, words = floors(house)
    assert status == 1
    assert "No two files import each other BROKEN" in words
    assert "No cycles are allowed in fedflair.metrics." in words
    assert re.search(r"\.(egg -> \.hen|hen -> \.egg)", words)


def test_lint_refuses_a_room_without_a_floor(house: Path) -> None:
    (house / "fedflair" / "utils.py").write_text("")
    status, words = floors(house)
    assert status == 1
    assert "utils" in words
