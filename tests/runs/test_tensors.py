"""Checkpoints hold what they were given, whoever else holds it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedflair.engine.vector import copied
from fedflair.errors import DataError
from fedflair.runs.tensors import _separate, load_facts, load_tensors, save_tensors
from fedflair.system.files import sweep
from tests import prepared


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


def test_a_file_with_any_bit_flipped_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    given = {
        "parameters": torch.arange(40.0),
        "half": torch.arange(7).to(torch.bfloat16),
        "step": torch.tensor(3),
        "none": torch.empty(0, 2),
    }
    facts = {"round": 6, "noise_seed": "12345", "best": None}
    save_tensors(path, given, facts)
    whole, num_refused = path.read_bytes(), 0
    for position in range(len(whole)):
        for bit in (0, 6):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found, there = load_tensors(path, remedy="do that")
            except DataError as error:
                assert re.search(r"c\.safetensors: damaged \(.*\); do that$", str(error))
                num_refused += 1
            else:
                assert there == facts
                assert found.keys() == given.keys()
                assert all(torch.equal(found[name], given[name]) for name in given)
    # Spaces that fill the header up may become another white space.
    assert num_refused > 2 * len(whole) - 16


def test_facts_that_were_edited_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_tensors(path, {"parameters": torch.arange(4.0)}, {"round": 6})
    path.write_bytes(path.read_bytes().replace(b'"round\\": 6', b'"round\\": 2'))
    assert load_facts(path) == {"round": 2}
    with pytest.raises(DataError, match="damaged"):
        load_tensors(path)


def test_a_file_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    save_file({"parameters": torch.arange(4.0)}, tmp_path / "c.safetensors", metadata={"facts": '{"round": 6}'})
    tensors, facts = load_tensors(tmp_path / "c.safetensors")
    assert (tensors["parameters"].tolist(), facts) == ([0.0, 1.0, 2.0, 3.0], {"round": 6})


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / f".c.safetensors.{os.getpid()}.partial").symlink_to(victim)
    save_tensors(tmp_path / "c.safetensors", {"parameters": torch.arange(4.0)}, {})
    assert victim.read_text() == "whole"
    assert load_tensors(tmp_path / "c.safetensors")[0]["parameters"].numel() == 4


def save_zeros(words: Sequence[str]) -> int:
    save_tensors(Path(words[0]), {"parameters": torch.zeros(1000)}, {})
    return 0


def test_a_disk_that_refuses_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_tensors(path, {"parameters": torch.arange(4.0)}, {})
    done = prepared.run([str(path)], through=save_zeros, file_size=1000)
    assert f"fedflair.errors.DiskError: {path}: " in done.stderr.splitlines()[-1]
    assert load_tensors(path)[0]["parameters"].numel() == 4
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


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
