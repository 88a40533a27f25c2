"""An exported model is the run's, in fedflair and without it; its files are whole, and nothing in them is trusted."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedflair.cli import main
from fedflair.evaluation.exported import load_network, model_of_export
from fedflair.evaluation.opened import open_run
from fedflair.runs.folder import RunFolder
from fedflair.runs.tensors import load_tensors, save_tensors
from tests.conftest import jpeg
from tests.evaluation.exports import assert_alike, exported, probabilities, trained

OWN = """
from torch import nn
from fedflair.data.images.preprocessing import Preprocessing


def build(num_labels):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(8, num_labels),
    )
    return network, Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 24, "bicubic")
"""
KINDS: dict[str, dict[str, Any]] = {
    "film": {"model": "small_cnn", "trainable": "film"},
    "lora": {"model": "small_cnn", "trainable": "lora", "lora_rank": 2},
    "head": {"model": "small_cnn", "trainable": "head", "local_augmentation": "none"},
    "small": {"model": "small_cnn"},
    "own": {"model_type": "exported_networks:build", "image_size": None},
}


@pytest.fixture(scope="module", autouse=True)
def own_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "exported_networks.py").write_text(OWN)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("exported_networks", None)


@pytest.fixture(scope="module")
def run_of(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of each kind, trained when it is asked for."""
    folder, found = tmp_path_factory.mktemp("runs"), dict[str, Path]()
    # Features are kept beside it.
    store = shutil.copy(tiny_store, folder / "store.hdf5")

    def run(kind: str) -> Path:
        if kind not in found:
            found[kind] = trained(store, folder / kind, **KINDS[kind])
        return found[kind]

    return run


@pytest.fixture(scope="module")
def export_of(run_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("exports")

    def export(kind: str) -> Path:
        output = folder / kind
        return output if output.exists() else exported(run_of(kind), output)

    return export


@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_as_the_run_does(
    run_of: Callable[[str], Path], export_of: Callable[[str], Path], tiny_store: Path, kind: str
) -> None:
    folder, trainable = export_of(kind), KINDS[kind].get("trainable", "all")
    assert_alike(run_of(kind), folder, tiny_store, exactly=trainable == "all", allow_code=kind == "own")
    # Adapters are built in: nothing of them is left.
    names = load_file(folder / "model.safetensors").keys()
    assert not [name for name in names if "parametrizations" in name or "scale" in name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output=new.onnx"], "output: new.onnx ends like another format; give --format onnx"),
        (["--output=new.safetensors", "--format=onnx"], "give --format safetensors, or name a folder"),
    ],
)
def test_a_file_that_ends_like_another_format_is_refused(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["export", f"--run={run_of('small')}", *words]) == 1
    assert message in capsys.readouterr().err


def test_one_file_the_last_model_and_its_network_in_python(
    run_of: Callable[[str], Path], tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "model.safetensors"
    words = ["export", f"--run={run_of('small')}", f"--output={file}", "--checkpoint=last"]
    assert main(words) == 0
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]
    assert load_tensors(file)[1]["made_by"]["checkpoint"] == "last"
    assert "noise_seed" not in file.read_bytes().decode("latin-1")
    there = probabilities(open_run(run_of("small"), "last").model(), tiny_store)
    assert np.array_equal(probabilities(model_of_export(file), tiny_store), there)
    network = load_network(file)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    before = file.read_bytes()
    assert main(words) == 1
    assert f"output: {file} is there already" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize("there", ["file", "folder", "empty folder", "broken link"])
def test_nothing_is_overwritten(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    output = tmp_path / "there"
    if there == "file":
        output.write_text("mine")
    elif there == "broken link":
        output.symlink_to(tmp_path / "absent")
    else:
        output.mkdir()
    if there == "folder":
        (output / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", f"--run={run_of('small')}", f"--output={output}"]) == 1
    assert f"output: {output} is there already; remove it, or name another place" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_half_written(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a" / "model"
    words = ["export", f"--run={run_of('small')}", f"--output={output}"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        assert main(words) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors: cannot be written" in line
    assert "free some space" in line
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_a_network_of_somebody_s_own_is_imported_only_where_it_is_trusted(
    export_of: Callable[[str], Path], own_module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export_of("own")
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    words = ["predict", f"--model={folder}", str(tmp_path / "a.jpg")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "exported_networks:build" in said
    assert "add --allow_code where you trust it" in said
    assert main([*words, "--allow_code"]) == 0
    card = (folder / "README.md").read_text()
    assert 'load_network(".", allow_code=True)' in card
    # Whatever it would be: nothing of it is called.
    forged = tmp_path / "forged.safetensors"
    tensors, facts = load_tensors(folder / "model.safetensors")
    facts["network"] |= {"model_type": "os:abort"}
    save_tensors(forged, tensors, facts)
    assert main(["predict", f"--model={forged}", str(tmp_path / "a.jpg")]) == 1
    assert "os:abort" in capsys.readouterr().err
    # Trusted is what it was made with, and not what came into its place.
    facts["network"] |= {"model_type": "exported_networks:build", "own_code": {"exported_networks:build": "0"}}
    save_tensors(forged, tensors, facts)
    assert main(["predict", f"--model={forged}", "--allow_code", str(tmp_path / "a.jpg")]) == 1
    assert "the file of exported_networks:build here is not the one" in capsys.readouterr().err


def changed(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        inside: Any = facts
        for name in path[:-1]:
            inside = inside[name]
        inside[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(["format"], "other"), "not an exported model"),
        (changed(["format_version"], 2), "exported by a newer fedflair"),
        (changed(["labels"], []), "damaged"),
        (changed(["labels"], ["a", "a"]), "damaged"),
        (changed(["labels"], ["a", 1]), "damaged"),
        (changed(["labels"], ["a", "b"]), "its weights are not those of"),
        (changed(["network"], None), "damaged"),
        (changed(["network", "model"], "unknown"), "of somebody's own"),
        (changed(["network", "model_type"], 5), "damaged"),
        (changed(["network", "pretrained"], "yes"), "damaged"),
        (changed(["network", "precision"], "fp8"), "damaged"),
        (changed(["network", "kernels"], "fastest"), "damaged"),
        (changed(["network", "plugins"], [1]), "damaged"),
        (changed(["preprocessing", "size"], 1 << 40), "damaged"),
        (changed(["preprocessing", "size"], "large"), "damaged"),
        (changed(["preprocessing", "deviation"], [0, 1, 1]), "damaged"),
        (changed(["preprocessing", "mean"], [1]), "damaged"),
        (changed(["preprocessing", "interpolation"], "nearest"), "damaged"),
    ],
)
def test_an_export_that_somebody_changed_is_one_line(
    export_of: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    tensors, facts = load_tensors(export_of("small") / "model.safetensors")
    change(facts)
    save_tensors(tmp_path / "model.safetensors", tensors, facts)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    assert main(["predict", f"--model={tmp_path}", str(tmp_path / "a.jpg")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(tmp_path / "model.safetensors") in line
    assert "internal error" not in line


def test_damaged_files_are_one_line(
    export_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (export_of("small") / "model.safetensors").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    for content in (b"", whole[:-1], flipped, b"\0" * 64):
        (tmp_path / "m.safetensors").write_bytes(content)
        assert main(["predict", f"--model={tmp_path / 'm.safetensors'}", str(tmp_path / "a.jpg")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "m.safetensors: damaged" in line
        assert "export it again with 'fedflair export'" in line


def test_a_run_that_does_not_say_its_labels_says_what_to_do(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = RunFolder(Path(shutil.copytree(run_of("small"), tmp_path / "old")))
    old.provenance.unlink()
    tensors, facts = load_tensors(old.best)
    save_tensors(old.best, tensors, {name: value for name, value in facts.items() if name != "provenance"})
    assert main(["export", f"--run={old.path}", f"--output={tmp_path / 'model'}"]) == 1
    assert f"'fedflair train --resume --run {old.path}' adds them" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
