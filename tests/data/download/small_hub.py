"""A hub with a small repository, and files in it whose "images" are noise."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedflair.data.download import run
from fedflair.data.download.plan import Request, Watcher
from tests.data.download.fault_server import Files
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
        self.answers: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        content = {resolved(name, commit): data for name, data in repository.items() for commit in (COMMIT, LATER)}
        self.files = Files(content, routes=self.route)

    def route(self, method: str, path: str) -> tuple[int, dict[str, str], bytes] | None:
        if not path.startswith("/api/"):
            return None
        if self.failures:
            return self.failures.pop(0), {}, b""
        path = path.split("?")[0]
        for kind, body in self.answers.items():
            if kind in path:
                return 200, {"Content-Type": "application/json", **self.links}, body
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


def download(**options: Any) -> None:
    run.download(Request(**options), Watcher())


def fetched(hub: Hub) -> int:
    """Bytes of all files of the repository that are taken."""
    return sum(len(data) for name, data in hub.repository.items() if not name.startswith("."))
