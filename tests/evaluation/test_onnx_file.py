"""A network as ONNX is the same network, for any number of photographs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedflair.cli import main
from fedflair.evaluation.exported import load_network
from tests.conftest import LABELS
from tests.evaluation.exports import exported, trained


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_store, tmp_path_factory.mktemp("runs") / "run", model="small_cnn", trainable="lora")


def test_as_onnx_it_is_the_same_network_for_any_number_of_photographs(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    folder, file = tmp_path / "folder", tmp_path / "alone.onnx"
    for output in (folder, file):
        exported(run, output, "--format=onnx")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "model.json", "model.onnx", "model.safetensors"),
    ]
    assert "`images`, float32 [n, 3, 32, 32]" in (folder / "README.md").read_text()
    network = load_network(folder)
    for path in (folder / "model.onnx", file):
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert json.loads(session.get_modelmeta().custom_metadata_map["fedflair"])["labels"] == list(LABELS)
        for number in (1, 5):
            images = torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(number))
            (logits,) = session.run(["logits"], {"images": images.numpy()})
            with torch.inference_mode():
                np.testing.assert_allclose(logits, network(images).numpy(), atol=1e-4, rtol=1e-4)


def test_what_onnx_lacks_is_named(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert main(["export", f"--run={run}", f"--output={tmp_path / 'm'}", "--format=onnx"]) == 1
    assert "format: onnx is not installed; pip install 'fedflair[onnx]'" in capsys.readouterr().err
    (tmp_path / "m.onnx").write_bytes(b"")
    assert main(["predict", f"--model={tmp_path / 'm.onnx'}", "a.jpg"]) == 1
    assert "ONNX is for other runtimes; name the folder" in capsys.readouterr().err
