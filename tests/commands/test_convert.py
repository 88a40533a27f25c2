"""What ``fedflair convert`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.commands.convert import convert
from tests.data.releases import records, write_hub


def test_the_way_back_is_named(tmp_path: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, back = tmp_path / "pfl.hdf5", tmp_path / "back.hdf5"
    convert(tiny_store, other, layout="pfl")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{other}: ") and first.endswith(
        " MB in the layout pfl; pixels are kept, JPEG bytes are not"
    )
    assert second == f"Next: fedflair convert {other} STORE --layout packed   (leads back)"
    convert(other, back, layout="packed")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" from pfl")
    assert lines[-1] == f"Next: fedflair describe {back}"


def test_a_release_is_summarised_on_its_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(write_hub(tmp_path / "hub", records()), tmp_path / "ml.hdf5", layout="ml-flair")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'ml.hdf5'}: ") and lines[0].endswith(" from huggingface")
    assert "describe" not in "".join(lines)
    assert lines[-1].endswith("(leads back)")
