"""Checkpoints hold what they were given, whoever else holds it."""

from __future__ import annotations

from pathlib import Path

import torch

from fedflair.engine.vector import copied
from fedflair.runs.tensors import _separate, load_tensors, save_tensors
from fedflair.system.files import sweep


def test_views_and_shared_memory_are_saved_as_they_are(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    given = {
        "whole": whole,
        "again": whole,
        "part": whole[3:7],
        "turned": whole.view(3, 4).t(),
        "pooled": copied(whole) * 1,
        "scalar": torch.tensor(3),
        "none": torch.empty(0),
    }
    save_tensors(tmp_path / "c.safetensors", given, {"round": 4})
    found, facts = load_tensors(tmp_path / "c.safetensors")
    assert facts == {"round": 4}
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_a_vector_of_its_own_is_not_copied() -> None:
    vectors = {"one": torch.zeros(1000), "other": copied(torch.ones(1000))}
    separate = _separate(vectors)
    assert all(separate[name].data_ptr() == vectors[name].data_ptr() for name in vectors)


def test_what_is_half_written_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.safetensors.12.partial", ".tmpAbC", "last.safetensors", ".gitignore"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmpfolder").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.safetensors", ".gitignore", ".tmpfolder"}
