"""What a release is made of says the same everywhere; ``make dist`` builds it and runs it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

import fedflair

ROOT = Path(__file__).parent.parent


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == fedflair.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{fedflair.__version__}"' in project
    assert f'license = "{citation["license"]}"' in project
    (reference,) = citation["references"]
    assert [author["family-names"] for author in reference["authors"]] == ["Song", "Granqvist", "Talwar"]


def test_the_changelog_has_an_entry_of_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert fedflair.__version__ in [heading.split()[0] for heading in headings]


def test_the_workflow_runs_what_is_there() -> None:
    """The suite by .ci/run, and ``make dist`` with every Python that the classifiers promise."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands == {"test": ["bash .ci/run"], "dist": ["make dist"]}
    promised = re.findall(r"Python :: (3\.[0-9]+)", (ROOT / "pyproject.toml").read_text())
    assert jobs["dist"]["strategy"]["matrix"]["python"] == promised == ["3.10", "3.11", "3.12", "3.13"]
    assert re.search(r"^dist: .*\n\t.*bash \.ci/dist$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert os.access(ROOT / ".ci" / "dist", os.X_OK)


def test_every_file_of_the_package_that_is_no_python_is_in_the_wheel() -> None:
    package = ROOT / "src" / "fedflair"
    patterns = re.search(r"^fedflair = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert patterns
    listed = {path for pattern in re.findall(r'"(.+?)"', patterns[1]) for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so")}
    assert there == listed
