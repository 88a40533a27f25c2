"""A model card is true: its lines run without fedflair, and see what fedflair sees; nothing of a dataset is markup."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torchvision import models

from fedflair.evaluation.exported import model_of_export
from fedflair.evaluation.opened import open_run
from fedflair.evaluation.predict import Files, Prediction, predict
from fedflair.runs.folder import RunFolder
from fedflair.runs.tensors import load_tensors
from tests.conftest import LABELS, jpeg, write_tiny_store
from tests.evaluation.exports import assert_alike, exported, imagenet_weights, trained


@pytest.fixture(scope="module")
def runs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    weights = imagenet_weights(folder / "resnet18.pth")
    options: dict[str, dict[str, Any]] = {
        "group norm": {"model_type": "resnet18", "trainable": "norm"},
        # Frozen BatchNorm, into which scales and shifts are built.
        "batch norm": {"pretrained": True, "pretrained_weights": weights, "trainable": "film", "learning_rate": 0.01},
        "small": {"model": "small_cnn"},
    }
    options["batch norm"]["model_type"] = "resnet18"
    return {kind: trained(tiny_store, folder / kind, **options[kind]) for kind in options}


@pytest.fixture(scope="module")
def exports(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    return {kind: exported(run, folder / kind) for kind, run in runs.items()}


@pytest.mark.parametrize("kind", ["group norm", "batch norm"])
def test_torchvision_s_networks_are_the_run_s(
    runs: dict[str, Path], exports: dict[str, Path], tiny_store: Path, kind: str
) -> None:
    assert_alike(runs[kind], exports[kind], tiny_store, exactly=False)


def test_the_card_s_lines_run_in_a_process_of_their_own(
    runs: dict[str, Path], exports: dict[str, Path], tmp_path: Path
) -> None:
    kinds = tuple(exports)
    folders = [Path(shutil.copytree(exports[kind], tmp_path / kind)) for kind in kinds]
    for folder in folders:
        (folder / "photo.jpg").write_bytes(jpeg(77))
    script = (
        "import os, re, sys\n"
        "for folder in sys.argv[1:]:\n"
        "    os.chdir(folder)\n"
        "    (code,) = re.findall(r'```python\\n(.*?)```', open('README.md').read(), re.DOTALL)\n"
        "    print('==')\n"
        "    exec(code, {})\n"
        "    print('fedflair' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for kind, text in zip(kinds, done.stdout.split("==\n")[1:], strict=True):
        *lines, imported = text.splitlines()
        (seen,) = predict(open_run(runs[kind], "best").model(), Files((tmp_path / kind / "photo.jpg",)))
        assert isinstance(seen, Prediction)
        assert [line.split(" ", 1)[1] for line in lines] == [repr(label) for label in LABELS]
        np.testing.assert_allclose([float(line.split()[0]) for line in lines], seen.probabilities, atol=3e-6)
        # torchvision's networks need nothing of fedflair's.
        assert imported == str(kind == "small")


def test_a_card_sees_large_photographs_as_fedflair_does(exports: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exports["small"], tmp_path / "small"))
    (folder / "photo.jpg").write_bytes(jpeg(5, side=1700))
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    inputs: dict[str, Any] = {}
    here = Path.cwd()
    try:
        os.chdir(folder)
        exec(code, inputs)
    finally:
        os.chdir(here)
    (seen,) = predict(model_of_export(folder), Files((folder / "photo.jpg",)))
    assert isinstance(seen, Prediction)
    np.testing.assert_allclose(inputs["probabilities"].numpy(), seen.probabilities, atol=3e-6)


def test_what_is_in_the_folder(runs: dict[str, Path], exports: dict[str, Path]) -> None:
    run, folder = RunFolder(runs["batch norm"]), exports["batch norm"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    facts = json.loads((folder / "model.json").read_text())
    assert facts["labels"] == list(LABELS)
    assert facts["network"]["model_type"] == "resnet18"
    assert facts["network"]["normalisation"].startswith("BatchNorm with fixed statistics")
    assert facts["preprocessing"]["size"] == 32
    made_by = facts["made_by"]
    assert made_by["provenance"] == json.loads(run.provenance.read_text())
    assert made_by["environment"] == json.loads(run.environment.read_text())
    assert made_by["test"] == json.loads(run.summary.read_text())["test"]
    assert (made_by["checkpoint"], made_by["round"]) == ("best", 1)
    assert load_tensors(folder / "model.safetensors")[1] == facts
    # As handed on as any file, where a run's own checkpoints are closed.
    mask = os.umask(0)
    os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644 & ~mask}
    plain = models.resnet18(num_classes=4)
    plain.load_state_dict(load_file(folder / "model.safetensors"))


def test_no_text_of_a_dataset_or_a_run_is_markup_on_the_card(tmp_path: Path) -> None:
    labels = ("```", "\n```\n# title", "<script>alert(1)</script>", "\x1b[2J\u202e")
    store = write_tiny_store(tmp_path / "s.hdf5", labels=labels)
    exported(trained(store, tmp_path / "`<b>\n# run", model="small_cnn"), tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    # A fence opens and closes for Python and for JSON, and nothing else begins a line of its own.
    assert [line for line in text.splitlines() if line.startswith(("```", "#"))] == [
        *("# `small_cnn`, 4 labels", "## Use", "```python", "```", "## Inputs and outputs", "## Labels"),
        *("```json", "```", "## Where it comes from"),
    ]
    fenced = re.findall(r"```json\n(.*?)\n```\n", text, re.DOTALL)
    assert json.loads(fenced[0]) == list(labels)
    assert "<b>" not in re.sub(r"`[^`]*`", "", text)
    assert all(c.isprintable() or c == "\n" for c in text)
    model = model_of_export(tmp_path / "model")
    assert model.setup.labels == labels
