"""Downloading from the hub, against a real server that speaks the hub's HTTP interface."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedflair.data.download import run
from fedflair.data.download.plan import Plan, Request, Watcher
from fedflair.data.download.ranges import BLOCK
from fedflair.data.download.transfer import partial_path
from fedflair.data.sources import open_source
from fedflair.errors import DataError
from tests import prepared
from tests.data.download.fault_server import Fault, Files, serving
from tests.data.download.small_hub import (
    COMMIT,
    IMAGE_SIZE,
    IMAGES_PER_USER,
    LATER,
    ROWS_PER_GROUP,
    Hub,
    download,
    fetched,
    resolved,
)
from tests.prepared import Prepared


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


def test_the_environment_names_a_mirror(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, as the hub's library looks at the environment when it is imported."""
    command = [sys.executable, "-m", "fedflair.cli", "download", "--output", str(tmp_path)]
    subprocess.run(command, env={**os.environ, "HF_ENDPOINT": hub.files.url}, check=True, stdout=subprocess.DEVNULL)
    assert json.loads((tmp_path / "download.json").read_text())["where"]["address"] == hub.files.url
    assert hub.files.sent == fetched(hub)


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


def logins(hub: Hub) -> set[str | None]:
    return {headers.get("Authorization") for *_, headers in hub.files.log}


def test_a_mirror_gets_the_token_only_where_the_user_says_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for options in ({}, {"num_users": 3}):
        download(output=tmp_path / str(len(options)), endpoint=hub.files.url, **options)
    assert logins(hub) == {None}
    hub.files.log.clear()
    for options in ({}, {"num_users": 3}):
        download(output=tmp_path / f"sent{len(options)}", endpoint=hub.files.url, send_token=True, **options)
    assert logins(hub) == {"Bearer hf_secret"}
    assert "hf_secret" not in (tmp_path / "sent0" / "download.json").read_text()


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
    command = ["download", *fixed, *options]
    hub.files.seconds_per_chunk = 0.03
    process = Prepared(command)
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
    assert prepared.run(command).returncode == 0
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
