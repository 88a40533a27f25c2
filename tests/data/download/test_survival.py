"""What a crash of the machine leaves: the order of syncs and renames, since killed processes cannot show it.

A file is safe when its bytes were synced before it took its name, and its folder after; and nothing speaks of a file
before it is safe, or lets go of what it was made from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.data.download import apple
from fedflair.data.download.plan import Request, Watcher
from fedflair.data.download.ranges import BLOCK, block_paths
from fedflair.data.download.run import download as run_download
from tests.data.download.fault_server import Files, serving
from tests.data.download.small_hub import Hub, download
from tests.data.download.small_release import LABELS, small_release
from tests.data.download.test_ranges import opened


class Order:
    """Which files of a folder are safe, at each moment, and what was wrong with the order of things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.synced: dict[tuple[int, int], bytes] = {}
        self.awaiting: dict[Path, bytes] = {}
        self.safe: dict[str, bytes] = {}
        self.wrong: list[str] = []

    def fsync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            for name in [name for name in self.awaiting if name.parent == path]:
                self._is_safe(name, self.awaiting.pop(name))
        else:
            self.synced[found.st_dev, found.st_ino] = path.read_bytes()

    def replace(self, source: Path, target: Path) -> None:
        found = source.stat()
        content = source.read_bytes()
        if self.synced.get((found.st_dev, found.st_ino)) != content:
            self.wrong.append(f"{target.name} took its name before its bytes were synced")
        self.awaiting[target] = content

    def _is_safe(self, path: Path, content: bytes) -> None:
        name = path.relative_to(self.folder).as_posix()
        self.safe[name] = content
        if name == "download.json":
            entries = json.loads(content)["files"].items()
            named = [n for key, entry in entries if "unpacked" not in entry for n in entry.get("files", [key])]
            self.wrong += [f"the record spoke of {n} before it was safe" for n in named if n not in self.safe]


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Order]:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to tell which file a descriptor is of")
    made = Order(tmp_path / "out")
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: Any) -> None:
        real_sync(descriptor)
        made.fsync(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    def replace(source: Path, target: Path) -> Path:
        made.replace(source, Path(target))
        return real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    yield made


def files_of(folder: Path) -> dict[str, bytes]:
    every = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in every.items() if name != ".download.lock"}


@pytest.mark.parametrize("options", [{}, {"labels_only": True}, {"num_users": 9}])
def test_what_comes_from_the_hub(hub: Hub, order: Order, options: dict[str, Any]) -> None:
    download(output=order.folder, endpoint=hub.files.url, **options)
    assert order.wrong == []
    there = {name: content for name, content in files_of(order.folder).items() if not name.startswith(".parts")}
    assert len(there) > 3
    assert {name: order.safe.get(name) for name in there} == there


@pytest.mark.parametrize("options", [{}, {"num_users": 3}, {"unpack": True}])
def test_what_comes_from_apple(
    order: Order, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: set[str] = set()

    def sync_file_system(folder: Path) -> None:
        unpacked.update(path.relative_to(order.folder).as_posix() for path in folder.rglob("*.jpg"))

    real_unlink = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".tar.gz"):
            images = {found.relative_to(order.folder).as_posix() for found in path.parent.rglob("*.jpg")}
            order.wrong += [f"{path.name} went before {name} was safe" for name in images - unpacked]
        real_unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(apple, "sync_file_system", sync_file_system)
    monkeypatch.setattr(Path, "unlink", unlink)
    with serving(Files(small_release(tmp_path / "release"))) as files:
        run_download(Request(order.folder, source="apple", base_url=files.url, num_connections=1, **options), Watcher())
    assert order.wrong == []
    there = files_of(order.folder)
    assert LABELS[1:] in there
    for name, content in there.items():
        assert name in unpacked or order.safe.get(name) == content
    assert bool(unpacked) == bool(options)


def test_the_journal_of_blocks_speaks_only_of_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(0).integers(0, 256, 6 * BLOCK, dtype=np.uint8).tobytes()
    blocks, journal = block_paths(tmp_path / "f")
    on_disk, real_sync = [b""], os.fsync

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        told = [line.rstrip(".").split() for line in journal.read_text().splitlines()[1:]]
        for first, last in told:
            part = slice(int(first) * BLOCK, int(last) * BLOCK)
            assert on_disk[-1][part] == content[part], "the journal was before the data"
        on_disk.append(blocks.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    with serving(Files({"/f": content})) as files, opened(files.url + "/f", len(content), tmp_path / "f") as file:
        for block in (4, 0, 2):
            file.seek(block * BLOCK)
            file.read(BLOCK)
            # The journal is with the system, so that a kill does not lose it.
            assert len(journal.read_text().splitlines()) == len(on_disk)
    assert len(on_disk) == 4
