"""Downloading from the hub, against a real server that speaks the hub's HTTP interface."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedflair.data.download import run
from fedflair.data.download.plan import Plan, Request, Watcher
from fedflair.data.download.ranges import BLOCK
from fedflair.data.download.transfer import partial_path
from fedflair.data.sources import open_source
from fedflair.errors import DataError
from tests.data.download.fault_server import Fault, Files, serving
from tests.data.releases import SCHEMA

COMMIT, LATER = "a" * 40, "b" * 40
USERS = {"train": 12, "val": 4, "test": 4}
IMAGES_PER_USER = 6
IMAGE_SIZE = 20_000
ROWS_PER_GROUP = 4


def shard(partition: str, users: list[str], seed: int) -> bytes:
    """A parquet file whose "images" are noise; users in order, so that most row groups lack most users."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in users:
        for _ in range(IMAGES_PER_USER):
            image_id = int(generator.integers(1, 42_000_000_000))
            image = generator.integers(0, 256, IMAGE_SIZE, dtype=np.uint8).tobytes()
            fine = ["cat", "tree"][: int(generator.integers(1, 3))]
            rows.append(
                {
                    "user_id": user,
                    "image_id": image_id,
                    "labels": ["animal", "plant"][: len(fine)],
                    "partition": partition,
                    "fine_grained_labels": fine,
                    "image": {"bytes": image, "path": f"{image_id}.jpg"},
                }
            )
    buffer = io.BytesIO()
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": {}}})})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, row_group_size=ROWS_PER_GROUP)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def repository() -> dict[str, bytes]:
    users = {name: [f"{name}-{k}@N0{k}" for k in range(number)] for name, number in USERS.items()}
    return {
        "data/train-00000-of-00002.parquet": shard("train", users["train"][:6], 0),
        "data/train-00001-of-00002.parquet": shard("train", users["train"][6:], 1),
        "data/val-00000-of-00001.parquet": shard("val", users["val"], 2),
        "data/test-00000-of-00001.parquet": shard("test", users["test"], 3),
        "label_relationship.txt": b"cat -> animal\ntree -> plant\n",
        "ATTRIBUTION.txt": b"nobody\n",
        ".gitattributes": b"*.parquet filter=lfs\n",
    }


def resolved(name: str, commit: str = COMMIT) -> str:
    return f"/datasets/apple/flair/resolve/{commit}/{name}"


def listed(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub's tree lists it: large ones with the SHA-256, all with git's own hash."""
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
    if name.endswith(".parquet"):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry | {"oid": "0" * 40}
    return entry | {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


class Hub:
    """The part of the hub's interface that is used: a branch's commit, a commit's tree, and a commit's files."""

    def __init__(self, repository: dict[str, bytes]) -> None:
        self.head = COMMIT
        self.repository = repository
        self.failures: list[int] = []
        content = {resolved(name, commit): data for name, data in repository.items() for commit in (COMMIT, LATER)}
        self.files = Files(content, routes=self.route)

    def route(self, method: str, path: str) -> tuple[int, dict[str, str], bytes] | None:
        if not path.startswith("/api/"):
            return None
        if self.failures:
            return self.failures.pop(0), {}, b""
        path = path.split("?")[0]
        if path == "/api/datasets/apple/flair/revision/main":
            return self.json({"id": "apple/flair", "sha": self.head, "siblings": [], "tags": []})
        if path in (f"/api/datasets/apple/flair/revision/{commit}" for commit in (COMMIT, LATER)):
            return self.json({"id": "apple/flair", "sha": path[-40:], "siblings": [], "tags": []})
        if path in (f"/api/datasets/apple/flair/tree/{commit}" for commit in (COMMIT, LATER)):
            folder = {"type": "directory", "path": "data", "oid": "1" * 40, "size": 0}
            return self.json([folder, *(listed(name, data) for name, data in self.repository.items())])
        if path.startswith("/api/datasets/apple/flair/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@pytest.fixture
def hub(repository: dict[str, bytes]) -> Iterator[Hub]:
    made = Hub(dict(repository))
    with serving(made.files):
        yield made


def download(**options: Any) -> None:
    run.download(Request(**options), Watcher())


def fetched(hub: Hub) -> int:
    return sum(len(data) for name, data in hub.repository.items() if not name.startswith("."))


def test_the_whole_dataset(hub: Hub, tmp_path: Path) -> None:
    plans: list[Plan] = []
    run.download(Request(tmp_path, endpoint=hub.files.url), Watcher(announce=plans.append))
    for name, content in hub.repository.items():
        if not name.startswith("."):
            assert (tmp_path / name).read_bytes() == content
    assert not (tmp_path / ".gitattributes").exists()
    assert len(list(open_source(tmp_path).records())) == 20 * IMAGES_PER_USER
    assert hub.files.sent == fetched(hub)
    assert (plans[0].where["revision"], plans[0].size) == (COMMIT, fetched(hub))


def test_later_runs_stay_with_the_recorded_commit(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url)
    hub.head = LATER
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url)
    assert not [path for method, path, *_ in hub.files.log if method == "GET" and "/resolve/" in path]
    assert json.loads((tmp_path / "download.json").read_text())["where"]["revision"] == COMMIT
    download(output=tmp_path, endpoint=hub.files.url, revision="main")
    assert json.loads((tmp_path / "download.json").read_text())["where"]["revision"] == LATER


def test_a_dropped_connection_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    path = resolved("data/train-00000-of-00002.parquet")
    hub.files.faults[path] = [Fault(drop_after=300_000)]
    download(output=tmp_path, endpoint=hub.files.url)
    assert hub.files.gets(path) == ["", "bytes=300000-"]
    assert hub.files.sent == fetched(hub)


@pytest.mark.parametrize("name", ["data/val-00000-of-00001.parquet", "label_relationship.txt"])
def test_bytes_that_do_not_have_the_hash_that_the_hub_lists(hub: Hub, tmp_path: Path, name: str) -> None:
    content = hub.files.content[resolved(name)]
    hub.files.content[resolved(name)] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(DataError, match=r"its hash is [0-9a-f]{40,64}, the hub lists [0-9a-f]{40,64}"):
        download(output=tmp_path, endpoint=hub.files.url)
    assert not (tmp_path / name).exists()
    assert hub.files.gets(resolved(name)) == ["", ""]


def test_a_file_of_another_size_than_the_hub_lists(hub: Hub, tmp_path: Path) -> None:
    name = "ATTRIBUTION.txt"
    (tmp_path / name).write_bytes(b"an older, longer text\n")
    download(output=tmp_path, endpoint=hub.files.url)
    assert (tmp_path / name).read_bytes() == b"nobody\n"


def test_a_name_that_leads_out_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    hub.repository["../evil.txt"] = b"evil"
    with pytest.raises(DataError, match="leads out of the folder"):
        download(output=tmp_path / "out", endpoint=hub.files.url)
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_hub_that_fails_for_a_moment(hub: Hub, tmp_path: Path) -> None:
    hub.failures = [500]
    download(output=tmp_path, endpoint=hub.files.url)
    assert (tmp_path / "ATTRIBUTION.txt").is_file()


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at v9: no such revision; check --revision"):
        download(output=tmp_path, endpoint=hub.files.url, revision="v9")


def test_an_address_that_is_no_hub(tmp_path: Path) -> None:
    with serving(Files({})) as files, pytest.raises(DataError, match="check --endpoint"):
        download(output=tmp_path, endpoint=files.url)


def test_a_subset_keeps_whole_users_and_fetches_little_more(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url, num_users=3)
    found = list(open_source(tmp_path).records())
    users = {r.user_id for r in found}
    assert len(users) == 3
    assert {r.partition for r in found} == {"train", "val", "test"}
    originals = {}
    for name, content in hub.repository.items():
        if name.endswith(".parquet"):
            for row in pq.read_table(io.BytesIO(content)).to_pylist():
                originals[row["image_id"]] = row
    assert len(found) == 3 * IMAGES_PER_USER
    for r in found:
        assert r.image == originals[r.image_id]["image"]["bytes"]
        assert r.user_id == originals[r.image_id]["user_id"]
        assert list(r.fine_grained_labels) == originals[r.image_id]["fine_grained_labels"]
    # A user's rows touch at most three row groups of four images; of each other group, a block with its labels.
    groups = 20 * IMAGES_PER_USER // ROWS_PER_GROUP
    assert hub.files.sent < 3 * 3 * ROWS_PER_GROUP * IMAGE_SIZE + (2 * groups + 40) * BLOCK
    assert hub.files.sent < 0.75 * fetched(hub)
    assert not (tmp_path / ".parts").exists()
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url, num_users=3)
    assert not [path for method, path, *_ in hub.files.log if method == "GET" and path.endswith(".parquet")]


def test_the_same_seed_chooses_the_same_users(hub: Hub, tmp_path: Path) -> None:
    chosen = []
    for number, seed in enumerate((1, 1, 2)):
        download(output=tmp_path / str(number), endpoint=hub.files.url, num_users=4, seed=seed)
        chosen.append({r.user_id for r in open_source(tmp_path / str(number)).records()})
    assert chosen[0] == chosen[1] != chosen[2]


def test_only_labels(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url, labels_only=True)
    tables = [pq.read_table(path) for path in sorted(tmp_path.glob("labels/*.parquet"))]
    assert sum(table.num_rows for table in tables) == 20 * IMAGES_PER_USER
    assert tables[0].column_names == ["user_id", "image_id", "labels", "partition", "fine_grained_labels"]
    assert (tmp_path / "label_relationship.txt").is_file()
    assert not list(tmp_path.glob("data/*"))
    download(output=tmp_path, endpoint=hub.files.url)
    assert len(list(open_source(tmp_path).records())) == 20 * IMAGES_PER_USER


@pytest.mark.parametrize("options", [[], ["--num_users", "15"]])
def test_a_killed_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path, options: list[str]) -> None:
    fixed = ["--endpoint", hub.files.url, "--output", str(tmp_path), "--num_connections", "2"]
    command = [sys.executable, "-m", "fedflair.cli", "download", *fixed, *options]
    hub.files.seconds_per_chunk = 0.03
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while hub.files.sent < 900_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    hub.files.seconds_per_chunk = 0
    sent, hub.files.sent = hub.files.sent, 0
    names = [name for name in hub.repository if name.startswith("data/")]
    partial = {name: partial_path(tmp_path / name) for name in names}
    there = {name: path.stat().st_size for name, path in partial.items() if path.exists()}
    whole = [name for name in names if (tmp_path / name).exists()]
    hub.files.log.clear()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    found = list(open_source(tmp_path).records())
    assert len(found) == (15 if options else 20) * IMAGES_PER_USER
    if options:
        # Half of what had come, at least, did not come again.
        assert hub.files.sent < fresh(hub, tmp_path / "fresh", options) - 0.5 * sent
        return
    assert any(there.values())
    for name in names:
        asked = [f"bytes={there[name]}-"] if there.get(name) else [""]
        complete = name in whole or there.get(name) == len(hub.repository[name])
        assert hub.files.gets(resolved(name)) == ([] if complete else asked)
    assert not list(tmp_path.rglob("*.partial*"))


def fresh(hub: Hub, output: Path, options: list[str]) -> int:
    """The bytes that an undisturbed download takes, leaving the server's count as it was."""
    before = hub.files.sent
    download(output=output, endpoint=hub.files.url, num_users=int(options[1]))
    taken, hub.files.sent = hub.files.sent - before, before
    return taken
