"""``fedflair reproduce``: from a hub to a score beside the published one, in one command that can be given again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.cli import run as run_command
from fedflair.config.options import PRESETS
from fedflair.data.synthetic.synthesize import synthesize
from fedflair.errors import ConfigError
from fedflair.sweep.reproduction import ROWS
from tests.data.download.conftest import plain_network  # noqa: F401 - a fixture, for every test here
from tests.data.download.fault_server import serving
from tests.data.download.small_hub import Hub

SMALL = [
    "--model", "small_cnn", "--image_size", "32", "--central_num_iterations", "1", "--cohort_size", "2",
    "--central_lr_num_warmup_iterations", "0", "--device", "cpu", "--num_threads", "1",
]  # fmt: skip


def test_from_a_hub_to_the_two_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release, store, output = tmp_path / "release", tmp_path / "flair.hdf5", tmp_path / "runs"
    synthesize(output=release, num_users=12, format="huggingface", processes=1)
    files = {str(p.relative_to(release)): p.read_bytes() for p in release.rglob("*") if p.is_file()}
    words = ["reproduce", "coarse_scratch", "--data_path", str(store), "--output", str(output), "--seeds", "1", *SMALL]
    hub = Hub(files)
    with serving(hub.files):
        run_command([*words, "--endpoint", hub.files.url])
    shown = capsys.readouterr().out
    assert "50.1 ± 0.5" in shown and "12 users, and FLAIR 51,414" in shown and "central_num_iterations 1" in shown
    summary = json.loads((output / "runs/run-seed0/summary.json").read_text())
    result = json.loads((output / "reproduction.json").read_text())
    assert result["here"] == {"mean": pytest.approx(100 * summary["test"]["macro_ap"]), "std": None}
    assert result["difference"] == pytest.approx(result["here"]["mean"] - 50.1) and not result["comparable"]
    assert (output / "report.html").is_file()

    # The server is gone: what is there is neither fetched nor trained again.
    before = (output / "runs/run-seed0/summary.json").stat().st_mtime_ns
    run_command([*words, "--json"])
    assert json.loads(capsys.readouterr().out) == result
    assert (output / "runs/run-seed0/summary.json").stat().st_mtime_ns == before


def test_rows_are_the_shipped_configurations() -> None:
    assert sorted([*ROWS, "demo"]) == sorted(path.stem for path in PRESETS.glob("*.yaml"))
    page = (Path(__file__).parents[2] / "docs/reproducing.md").read_text()
    assert [row for row in ROWS if f"`fedflair train --args_config {row}`" not in page] == []


def test_what_is_no_row_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row: bseline is none; there are baseline, "):
        run_command(["reproduce", "bseline"])
    with pytest.raises(ConfigError, match="args_config: a row has its own configuration"):
        run_command(["reproduce", "baseline", "--args_config", "central"])
    with pytest.raises(ConfigError, match="mu: "):
        run_command(["reproduce", "baseline", "--mu", "1", "--data_path", str(tmp_path / "store.hdf5")])
    assert list(tmp_path.iterdir()) == []


def test_a_source_beside_a_store_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    words = ["--data_path", str(tiny_store), "--source", str(tmp_path), "--output", str(tmp_path / "runs")]
    with pytest.raises(ConfigError, match=r"source: .* is there already; leave source out"):
        run_command(["reproduce", "baseline", *words])
    assert list(tmp_path.iterdir()) == []
