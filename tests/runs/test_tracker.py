"""Where a run's numbers go: Weights & Biases with the real package, offline, and without the package."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedflair.cli import main
from fedflair.runs.folder import new_run, read_rows, write_config
from fedflair.runs.tracker import tracker
from tests import prepared
from tests.small_runs import command, small_config

BLOCK, HEADER = 32768, 7


def records(path: Path) -> Iterator[bytes]:
    """The records of an offline file: 7 bytes of its own, then LevelDB's log (crc, length, kind; 32 KiB blocks)."""
    data, position, whole = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):
            yield whole
            whole = b""


def sent_rows(path: Path) -> list[dict[str, float]]:
    """The rows of metrics in an offline file."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for data in records(path):
        record = Record.FromString(data)
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            found.append({name: float(value) for name, value in items.items() if not name.startswith("_")})
    return found


def settled_rows(path: Path, count: int) -> list[dict[str, float]]:
    """The rows in an offline file, which another process writes out: ``count`` of them, or what is there in the end."""
    deadline = time.monotonic() + 60
    while len(rows := sent_rows(path)) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    return rows


def exit_code(path: Path) -> int | None:
    """What an offline file says of how its run ended."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for record in map(Record.FromString, records(path)):
            if record.HasField("exit"):
                return int(record.exit.exit_code)
        time.sleep(0.2)
    return None


def test_weights_and_biases_gets_every_row_and_a_resumed_run_its_id(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = small_config(tiny_store, run=tmp_path / "run", wandb_project_id="flair")
    folder = new_run(config)
    write_config(folder, config)
    options = {"num_rounds": 4, "wandb_project_id": "flair"}
    with tracker(folder, start_round=0, **options) as log:
        for round_ in (1, 2, 3):
            log.log({"round": round_, "train/loss": 1 / round_, "train/nothing": None})
    with pytest.raises(LookupError), tracker(folder, start_round=2, **options) as log:
        for round_ in (3, 4):
            log.log({"round": round_, "train/loss": 1 / round_, "val/macro_ap": 0.5})
        log.log_test({"macro_ap": 0.6, "macro_f1": float("nan")}, 4)
        raise LookupError
    first, second = sorted((folder.path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert first.name == second.name == f"run-{(folder.path / 'wandb' / 'id.txt').read_text()}.wandb"
    assert settled_rows(first, 3) == [{"round": r, "train/loss": 1 / r} for r in (1, 2, 3)]
    # The scores on test of the best model join the last round's row; what is no number is left out.
    assert settled_rows(second, 2) == [
        {"round": r, "train/loss": 1 / r, "val/macro_ap": 0.5} | ({"test/macro_ap": 0.6} if r == 4 else {})
        for r in (3, 4)
    ]
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [(one.step, round(one.value, 6)) for one in events.Scalars("test/macro_ap")] == [(4, 0.6)]
    assert "test/macro_f1" not in events.Tags()["scalars"]
    assert [exit_code(path) for path in (first, second)] == [0, 1]
    assert [row["round"] for row in read_rows(folder)] == [1, 2, 3, 4]
    assert yaml.safe_load(folder.config.read_text())["wandb_project_id"] == "flair"


class Absent:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")


def without_wandb(words: Sequence[str]) -> int:
    assert "wandb" not in sys.modules
    sys.meta_path.insert(0, Absent())
    return main(words)


def test_without_the_package_nothing_starts(tiny_store: Path, tmp_path: Path) -> None:
    config = small_config(tiny_store, run=tmp_path / "run")
    result = prepared.run([*command(config)[3:], "--wandb_project_id", "flair"], through=without_wandb)
    assert result.returncode == 1
    assert result.stderr == (
        "fedflair: wandb_project_id: needs the package wandb (No module named 'wandb'); "
        "pip install 'fedflair[wandb]', or drop the option\n"
    )
    assert not (tmp_path / "run").exists()
