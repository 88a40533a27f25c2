"""The code of docs/extending.md runs as it stands, from its own folder, and is FedNova."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms import ALGORITHMS
from fedflair.federated.server import ServerState
from fedflair.federated.setup import initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.round import run_round
from tests import prepared
from tests.small_runs import small_config, timeless_rows

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def commands() -> list[list[str]]:
    return [shlex.split(line) for line in block("bash").replace("\\\n", " ").splitlines()]


def run(folder: Path, words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    assert words[0] == "fedflair"
    return prepared.run([*words[1:], *more], folder)


@pytest.fixture(scope="module")
def folder(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands were run, beside the page's plugin."""
    here = tmp_path_factory.mktemp("plugin")
    (here / "data" / "demo").mkdir(parents=True)
    shutil.copy(tiny_store, here / "data" / "demo" / "flair_federated.hdf5")
    (here / "fednova.py").write_text(block("python"))
    for words in commands():
        done = run(here, words)
        assert done.returncode == 0, done.stderr
    return here


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the page's module holds, and no trace of it afterwards."""
    before, found = dict(ALGORITHMS), {}
    exec(block("python"), found)
    yield found
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


def test_the_pages_commands_train_and_score(folder: Path) -> None:
    assert len(block("python").splitlines()) < 40
    assert [row["round"] for row in read_rows(RunFolder(folder / "runs" / "fednova"))] == [1, 2, 3]
    assert (folder / "runs" / "fednova" / "metrics.jsonl").is_file()


def test_a_stopped_run_goes_on_with_its_plugin(folder: Path, copied: Path) -> None:
    resume = ["fedflair", "train", "--resume", "--resume_from", "previous", "--run", "runs/fednova"]
    done = run(copied, resume)
    assert done.returncode == 0, done.stderr
    again, rows = (timeless_rows(place / "runs" / "fednova") for place in (copied, folder))
    assert again == rows


def test_a_changed_plugin_neither_trains_on_nor_scores(copied: Path) -> None:
    with (copied / "fednova.py").open("a") as file:
        file.write("# another\n")
    for words in (
        ["fedflair", "train", "--resume", "--run", "runs/fednova"],
        ["fedflair", "evaluate", "--run", "runs/fednova", "--partition", "val"],
    ):
        done = run(copied, words)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "fedflair: plugins: the file of fednova has changed since the run began; put it back, or start a new run"
        )


def test_workers_and_sweeps_import_it(folder: Path, copied: Path) -> None:
    """A Ray worker gives the very numbers of threads, as part of a sweep."""
    words = [word for word in commands()[0][2:] if word not in ("--run", "runs/fednova")]
    given = ["fedflair", "sweep", *words, "--workers", "1", "--seeds", "1", "--output", "sweep"]
    done = run(copied, given, "--grid", "local_momentum=0.0")
    assert done.returncode == 0, done.stderr
    expected = read_rows(RunFolder(folder / "runs" / "fednova"))
    (same,) = (copied / "sweep" / "runs").glob("local_momentum=0.0*")
    for row, found in zip(expected, read_rows(RunFolder(same)), strict=True):
        assert found["train/loss"] == row["train/loss"]


def test_in_a_file_and_as_an_installed_package(copied: Path) -> None:
    """``plugins:`` in YAML takes one name or several; an installed package's module needs no option."""
    named = ("--plugins", "fednova", "--algorithm_name", "--run", "runs/fednova")
    given = [word for word in commands()[0][2:] if word not in named]
    (copied / "nova.yaml").write_text("plugins: fednova\nalgorithm_name: fednova\n")
    done = run(copied, ["fedflair", "train", "--args_config", "nova.yaml", *given, "--run", "runs/yaml"])
    assert done.returncode == 0, done.stderr
    package = copied / "nova_fl-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: nova_fl\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[fedflair.plugins]\nnova = fednova\n")
    installed = ["fedflair", "train", "--algorithm_name", "fednova", *given, "--run", "runs/installed"]
    done = run(copied, installed)
    assert done.returncode == 0, done.stderr
    (package / "entry_points.txt").write_text("[fedflair.plugins]\nnova = absent_module\n")
    done = run(copied, [*installed[:-1], "runs/broken"])
    assert done.returncode == 1
    assert "plugins of the installed nova_fl: absent_module cannot be imported" in done.stderr
    assert not (copied / "runs" / "broken").exists()


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("absent", None, "plugins: absent cannot be imported (ModuleNotFoundError: No module named 'absent')"),
        ("failing", "1 / 0", "plugins: failing cannot be imported (ZeroDivisionError: division by zero)"),
        (
            "rude",
            "from fedflair.federated.algorithms import ALGORITHMS\nALGORITHMS['fedavg'] = None",
            "plugins: rude takes the place of algorithm_name fedavg; give it a name of its own",
        ),
        ("idle", "", "algorithm_name: 'fednova' is unknown; did you mean fedavg?"),
        ("not-a-name", None, "plugins: 'not-a-name' is no module's name"),
    ],
)
def test_a_plugin_that_cannot_be_is_told_in_a_line(
    tiny_store: Path, tmp_path: Path, module: str, code: str | None, said: str
) -> None:
    if code is not None:
        (tmp_path / f"{module}.py").write_text(code)
    words = ["fedflair", "train", "--plugins", module, "--algorithm_name", "fednova", "--pretrained", "false"]
    done = run(tmp_path, words, "--data_path", str(tiny_store), "--run", "here")
    assert done.returncode == (2 if code is None and "module's name" in said else 1)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fedflair: {said}")
    assert not (tmp_path / "here").exists()


def test_it_is_fednova(tiny_store: Path, names: dict[str, Any]) -> None:
    """Clients of 1 and 9 images take 2 and 6 steps; weights 1 and 9: the mean of updates per step, times 5.6."""
    options = {"central_optimizer": "sgd", "learning_rate": 1.0, "central_lr_schedule": "constant"}
    config = small_config(tiny_store, model="small_cnn", local_batch_size=4, weighting="num_examples", **options)
    setup = make_setup(config, noise_seed=0)
    object.__setattr__(setup.worker, "algorithm", names["make"](config, 6))
    state = initial_state(setup)
    cohort = [setup.worker.clients.client_ids[0], setup.worker.clients.client_ids[4]]
    with thread_backend(setup.worker) as backend:
        after, total = run_round(state, cohort, setup=setup, backend=backend)
        alone = [run_round(state, [client], setup=setup, backend=backend)[0] for client in cohort]
    assert float(total.extra["weighted_steps"]) == 1 * 2 + 9 * 6
    moved = [one.parameters - state.parameters for one in alone]
    expected = (1 * moved[0] / 2 + 9 * moved[1] / 6) / 10 * 5.6
    torch.testing.assert_close(after.parameters - state.parameters, expected, rtol=0, atol=1e-6)
    empty = ServerState(0, torch.zeros(2), {}, {}, {})
    algorithm = names["make"](TrainConfig.of(central_optimizer="sgd"), 6)
    assert np.all(algorithm.server_update(empty, torch.zeros(2), UpdateSum()).parameters.numpy() == 0)
