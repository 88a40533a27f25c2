"""The table of columns in ``docs/evaluation.md``: every column that runs write is in it, and no other."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.train import train
from tests.small_runs import small_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "evaluations": {"local_evaluation": True, "val_cohort_size": 2},
    "participation": {"dropout_rate": 0.3, "over_selection": 0.5, "client_speed_std": 0.5, "compression": "top_k"},
    "fedprox": {"algorithm_name": "fedprox"},
    "adafedprox": {"algorithm_name": "adafedprox", "adafedprox_adapt_frequency": 1},
    "scaffold": {"algorithm_name": "scaffold"},
    "reptile": {"algorithm_name": "reptile"},
    "central": {"algorithm_name": "central", "central_batch_size": 8},
    "private": {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "central_delta": 0.01,
        "adaptive_clipping": True,
        "adaptive_clipping_noise_std": 2.0,
    },
    "private metrics": {
        "central_privacy_mechanism": "gaussian_moments_accountant",
        "central_delta": 0.01,
        "private_metrics": 0.05,
    },
    "clipping": {"central_privacy_mechanism": "norm_clipping_only"},
    "like pfl": {"like": "pfl"},
    "local": {"local_privacy_mechanism": "gaussian"},
}


def expanded(name: str) -> list[str]:
    """``a/{b,c}_d`` is ``a/b_d`` and ``a/c_d``."""
    parts = re.split(r"\{([^}]*)\}", name)
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    return ["".join(choice) for choice in product(*choices)]


def documented() -> dict[str, list[str]]:
    """The other cells of the table by column."""
    section = DOCUMENT.read_text().split("## Columns of metrics.jsonl")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "| `" in line]
    return {name: cells for first, *cells in rows for name in expanded(first.strip("| `"))}


@pytest.fixture(scope="module")
def written(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Configuration -> the rows that it wrote."""
    folder = tmp_path_factory.mktemp("columns")
    options = {"model": "small_cnn", "central_num_iterations": 3, "evaluation_frequency": 1, "num_threads": 1}
    return {
        name: read_rows(RunFolder(train(small_config(tiny_store, run=folder / name, **options, **more))))
        for name, more in CONFIGURATIONS.items()
    }


def test_every_column_is_in_the_table_and_every_line_of_the_table_is_a_column(
    written: dict[str, list[dict[str, Any]]],
) -> None:
    columns = {column for rows in written.values() for row in rows for column in row}
    assert columns == documented().keys()


def test_columns_are_there_when_the_table_says_so(written: dict[str, list[dict[str, Any]]]) -> None:
    always = {column for column, (_, when, _) in documented().items() if when.startswith("always")}
    for name, rows in written.items():
        secret = {column for column, (_, when, _) in documented().items() if "secret cohorts" in when}
        replaced = {column for column, (_, when, _) in documented().items() if "but with `private_metrics`" in when}
        absent = (secret if name.startswith("private") else set()) | (replaced if name == "private metrics" else set())
        assert all(always - absent <= row.keys() for row in rows), name
        assert not any(absent & row.keys() for row in rows), name
    assert {column for row in written["plain"] for column in row} == always | {
        column for column, (_, when, _) in documented().items() if column.startswith("val/")
    }
    for row in written["central"]:
        zeros = [column for column, (_, when, _) in documented().items() if "0 with `central`" in when]
        assert len(zeros) == 4
        assert all(row[column] == 0 for column in zeros)
