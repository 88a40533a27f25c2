"""The notebooks of docs/notebooks run from their first cell to their last, in a kernel of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.provenance import read_provenance

BOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """(the notebook after its execution in ``folder``, its outputs as one text)."""
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(folder / "jupyter"))
    book = nbformat.read(BOOKS / f"{name}.ipynb", as_version=4)
    # Raises what a cell raises.
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return book, "\n".join(str(output.get("text", output.get("data", ""))) for output in outputs)


def test_every_notebook_is_small_and_tested() -> None:
    assert sorted(path.stem for path in BOOKS.iterdir()) == ["first_steps", "own_algorithm"]
    assert all(path.stat().st_size < 200_000 for path in BOOKS.iterdir())


def test_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = executed("first_steps", tmp_path, monkeypatch)
    summary = read_summary(RunFolder(tmp_path / "runs" / "first"))
    assert summary["rounds"] == 8
    assert f"test macro AP {summary['test']['macro_ap']:.4f}" in said
    assert "image/png" in said


def test_an_algorithm_of_ones_own_against_fedavg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = executed("own_algorithm", tmp_path, monkeypatch)
    for algorithm in ("fedavg", "fednova"):
        for seed in (0, 1):
            folder = RunFolder(tmp_path / "runs" / f"{algorithm}-{seed}")
            assert f"'{algorithm}, seed {seed}': {read_summary(folder)['test']['macro_ap']}" in said
            provenance = read_provenance(folder)
            assert provenance is not None
            assert set(provenance.plugins or {}) == {"fednova"}
    assert "image/png" in said


def test_the_algorithm_is_that_of_the_page_on_extending() -> None:
    book = nbformat.read(BOOKS / "own_algorithm.ipynb", as_version=4)
    (code,) = (cell.source for cell in book.cells if cell.source.startswith("%%writefile fednova.py\n"))
    assert code.removeprefix("%%writefile fednova.py\n") in (BOOKS.parent / "extending.md").read_text()
