"""Downloading from Apple, against a real server with a small release."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedflair.data.download import run
from fedflair.data.download.bounds import Bounds
from fedflair.data.download.plan import Request, Watcher
from fedflair.data.download.run import LOCK
from fedflair.data.download.transfer import partial_path
from fedflair.data.sources import open_source
from fedflair.errors import ConfigError, DataError, FedflairError
from fedflair.system.locks import locked
from tests import prepared
from tests.data.download.fault_server import Fault, Files, serving
from tests.data.download.small_release import LABELS, NOISE_SIZE, RELATION, archive_paths, packed, small_release
from tests.data.releases import USERS, member, records
from tests.prepared import Prepared


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def server(release: dict[str, bytes]) -> Iterator[Files]:
    with serving(Files(dict(release))) as files:
        yield files


def download(**options: Any) -> None:
    run.download(Request(**options), Watcher())


def images_of(path: Path) -> dict[int, bytes]:
    return {r.image_id: r.image for r in open_source(path).records()}


def command(server: Files, output: Path, *options: str) -> list[str]:
    fixed = ["--from", "apple", "--base_url", server.url, "--output", str(output)]
    return [sys.executable, "-m", "fedflair.cli", "download", *fixed, *options]


def test_the_whole_release(server: Files, tmp_path: Path) -> None:
    told: list[tuple[str, int | None]] = []
    watcher = Watcher(
        announce=lambda plan: told.append((plan.where["address"], plan.size)),
        start=lambda size: told.append(("start", size)),
        done=lambda name, size: told.append((name, size)),
    )
    run.download(Request(tmp_path / "out", source="apple", base_url=server.url), watcher)
    assert images_of(tmp_path / "out") == {r.image_id: r.image for r in records()}
    paths = (LABELS, RELATION, *archive_paths())
    names = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/*/**/*.*")}
    assert names == {path[1:] for path in paths}
    total = sum(len(server.content[path]) for path in paths)
    assert server.sent == total
    assert told[:2] == [(server.url, total), ("start", total)]
    assert dict(told[2:]) == {path[1:]: len(server.content[path]) for path in paths}


def test_a_second_run_fetches_nothing(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url)
    server.log.clear()
    download(output=tmp_path, source="apple", base_url=server.url)
    assert {method for method, *_ in server.log} == {"HEAD"}


def test_files_that_are_there_already_are_checked_and_kept(server: Files, tmp_path: Path) -> None:
    kept, spoilt = archive_paths()[:2]
    for path in (kept, spoilt):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_bytes(server.content[path])
    content = bytearray(server.content[spoilt])
    content[len(content) // 2] ^= 255
    (tmp_path / spoilt[1:]).write_bytes(content)
    download(output=tmp_path, source="apple", base_url=server.url)
    assert (server.gets(kept), server.gets(spoilt)) == ([], [""])
    assert (tmp_path / spoilt[1:]).read_bytes() == server.content[spoilt]


def test_only_labels(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, labels_only=True)
    assert (tmp_path / LABELS[1:]).read_bytes() == server.content[LABELS]
    assert {path for _, path, *_ in server.log} == {LABELS, RELATION}
    download(output=tmp_path, source="apple", base_url=server.url)
    assert len(images_of(tmp_path)) == 10


def test_raw(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, raw=True)
    assert sorted(f"/{path.relative_to(tmp_path)}" for path in tmp_path.glob("images/*/*")) == archive_paths(
        "raw", "images"
    )
    assert open_source(tmp_path).name == "apple-raw"
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}


def test_raw_unpacked(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, raw=True, unpack=True)
    assert len(list(tmp_path.glob("images/raw/images/*.jpg"))) == 53
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}


def test_unpack(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, unpack=True)
    assert not list(tmp_path.rglob("*.tar.gz"))
    assert len(list(tmp_path.glob("images/small/small_images/*.jpg"))) == 53
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}
    server.log.clear()
    download(output=tmp_path, source="apple", base_url=server.url, unpack=True)
    assert {method for method, *_ in server.log} == {"HEAD"}


def test_a_hostile_archive_writes_nothing_outside(server: Files, tmp_path: Path) -> None:
    server.content[archive_paths()[42]] = packed([("../../../../evil.jpg", b"evil")])
    with pytest.raises(DataError, match=r"small_images-42\.tar\.gz: member .* leads out of the folder"):
        download(output=tmp_path / "a" / "out", source="apple", base_url=server.url, unpack=True)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_subset_keeps_whole_users(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, num_users=3, seed=1)
    found = list(open_source(tmp_path).records())
    users = {r.user_id for r in found}
    assert len(users) == 3
    assert {r.partition for r in found} == {"train", "val", "test"}
    expected = {image for own in USERS.values() for user, ids in own.items() if user in users for image in ids}
    assert {r.image_id for r in found} == expected
    assert {int(path.stem) for path in tmp_path.rglob("*.jpg")} == expected
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_a_folder_holds_one_selection(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, num_users=3)
    with pytest.raises(
        ConfigError, match=r"holds a download of 3 users \(seed 0\), small images, from apple, not of all"
    ):
        download(output=tmp_path, source="apple", base_url=server.url)


def test_more_users_than_there_are(server: Files, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_users: 6 is not between 1 and the 5 users"):
        download(output=tmp_path, source="apple", base_url=server.url, num_users=6)


def test_faults_on_the_way(server: Files, tmp_path: Path) -> None:
    paths = archive_paths()
    server.faults = {
        paths[0]: [Fault(drop_after=40_000)],
        paths[1]: [Fault(status=503)],
        paths[2]: [Fault(drop_after=60_000), Fault(ignore_range=True)],
        LABELS: [Fault(drop_after=100)],
    }
    download(output=tmp_path, source="apple", base_url=server.url)
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}
    assert server.gets(paths[0]) == ["", "bytes=40000-"]


def test_an_archive_that_is_missing_is_named_before_anything_is_fetched(server: Files, tmp_path: Path) -> None:
    del server.content[archive_paths()[17]]
    with pytest.raises(DataError, match=r"small_images-17\.tar\.gz: the server answered 404"):
        download(output=tmp_path, source="apple", base_url=server.url)
    assert {method for method, *_ in server.log} == {"HEAD"}


def test_an_archive_that_is_damaged_on_the_server(server: Files, tmp_path: Path) -> None:
    path = archive_paths()[5]
    server.content[path] = server.content[path][:-100]
    with pytest.raises(DataError, match=r"small_images-05\.tar\.gz\.partial: cut short or damaged"):
        download(output=tmp_path, source="apple", base_url=server.url)
    assert not (tmp_path / path[1:]).exists()


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(server: Files, tmp_path: Path) -> None:
    server.head_sizes[archive_paths()[0]] = 10**15
    with pytest.raises(DataError, match=r"1000\.0 TB are still to come and .* are free; make room"):
        download(output=tmp_path, source="apple", base_url=server.url, raise_limits=1e6)
    assert {method for method, *_ in server.log} == {"HEAD"}


def test_a_second_download_into_the_same_folder(server: Files, tmp_path: Path) -> None:
    held = pytest.raises(DataError, match=rf"another download is writing there \(process {os.getpid()}\); wait for it")
    with locked(tmp_path / LOCK), held:
        download(output=tmp_path, source="apple", base_url=server.url)
    assert server.log == []
    download(output=tmp_path, source="apple", base_url=server.url, labels_only=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks(
    server: Files, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    download(output=tmp_path, source="apple", base_url=server.url, labels_only=True)
    assert (tmp_path / LABELS[1:]).read_bytes() == server.content[LABELS]


@pytest.mark.parametrize("what", ["labels", "images", "download.json", ".download.lock", "labels/all", "out"])
@pytest.mark.parametrize("kind", ["file", "folder", "loop"])
def test_one_line_for_whatever_stands_in_the_way(server: Files, tmp_path: Path, what: str, kind: str) -> None:
    output = tmp_path / "out"
    place = output if what == "out" else output / what
    if what != "out":
        place.parent.mkdir(parents=True)
    if kind == "folder":
        (place / LABELS[1:] / "x").mkdir(parents=True)
    elif kind == "file":
        place.write_text("")
    else:
        place.symlink_to(place)
    with pytest.raises(FedflairError, match=f"{output}") as raised:
        download(output=output, source="apple", base_url=server.url, num_users=3)
        raise DataError(f"{output}: nothing stood in the way")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [".download.lock", "labels/labels_and_metadata.json", "labels/all/x.partial"])
def test_nothing_is_written_through_planted_links(server: Files, tmp_path: Path, name: str) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "out" / name
    victim.write_text("kept")
    planted.parent.mkdir(parents=True)
    planted.symlink_to(victim)
    with contextlib.suppress(DataError):
        download(output=tmp_path / "out", source="apple", base_url=server.url, num_users=3)
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("options", [{"num_users": 5}, {"unpack": True}])
def test_an_image_that_is_in_no_archive(server: Files, tmp_path: Path, options: dict[str, Any]) -> None:
    path = archive_paths()[4]
    (lost,) = [r.image_id for r in records()[4:5]]
    server.content[path] = packed([("small_images/1000000000004.jpg", b"x")])
    with pytest.raises(DataError, match=rf"1 of 10 images are in no archive, the first is {lost}\.jpg"):
        download(output=tmp_path, source="apple", base_url=server.url, **options)


def test_a_file_that_changed_on_the_server_or_the_disk_is_fetched_again(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url)
    changed, cut, grown = archive_paths()[20:23]
    server.content[changed] = packed([("small_images/77.jpg", b"another")])
    (tmp_path / cut[1:]).write_bytes(server.content[cut][:-1])
    (tmp_path / grown[1:]).write_bytes(server.content[grown] + b"x")
    server.log.clear()
    download(output=tmp_path, source="apple", base_url=server.url)
    assert {path for method, path, *_ in server.log if method == "GET"} == {changed, cut, grown}
    for path in (changed, cut, grown):
        assert (tmp_path / path[1:]).read_bytes() == server.content[path]


def test_an_archive_that_changed_is_unpacked_again(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, unpack=True)
    changed = archive_paths()[20]
    server.content[changed] = packed([("small_images/77.jpg", b"another")])
    server.log.clear()
    download(output=tmp_path, source="apple", base_url=server.url, unpack=True)
    assert {path for method, path, *_ in server.log if method == "GET"} == {changed}
    assert (tmp_path / "images/small/small_images/77.jpg").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("path", "size"), [(LABELS, 2_000_000_001), (RELATION, 16_000_001), (archive_paths()[3], 2_000_000_001)]
)
def test_files_that_no_flair_could_have_are_refused_before_anything_is_fetched(
    server: Files, tmp_path: Path, path: str, size: int
) -> None:
    server.head_sizes[path] = size
    with pytest.raises(DataError, match=rf"{path}: {size:,} bytes, more than the .* --raise_limits TIMES"):
        download(output=tmp_path, source="apple", base_url=server.url)
    assert {method for method, *_ in server.log} == {"HEAD"}


@pytest.mark.parametrize("options", [{}, {"unpack": True}, {"num_users": 5}])
def test_archives_that_unpack_without_a_bound(
    server: Files, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Bounds", lambda: Bounds(unpacked=4_000_000))
    own = [member(r) for r in records()[7:8]]
    # Read to the end even where it is not wanted, so that it counts even then.
    server.content[archive_paths()[7]] = packed([*own, ("small_images/1000000000007.jpg", bytes(20_000_000))])
    assert len(server.content[archive_paths()[7]]) < 100_000
    with pytest.raises(DataError, match=r"unpacks to more than 4,000,000 bytes, .* --raise_limits"):
        download(output=tmp_path, source="apple", base_url=server.url, **options)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jpg")) < 10_000_000
    download(output=tmp_path, source="apple", base_url=server.url, raise_limits=6, **options)


@pytest.mark.parametrize(
    "entry",
    [3, None, [], {}, {"user_id": 3}, {"image_id": "x"}, {"image_id": "9" * 5000}, {"image_id": 1e400},
     {"partition": None}, {"partition": "\ud800"}, {"user_id": []}],
)  # fmt: skip
def test_labels_of_which_no_users_can_be_chosen(server: Files, tmp_path: Path, entry: Any) -> None:
    sound = {"user_id": "a", "image_id": "1", "partition": "train", "labels": [], "fine_grained_labels": []}
    changed = sound | entry if isinstance(entry, dict) and entry else entry
    server.content[LABELS] = json.dumps([sound, changed]).encode()
    with pytest.raises(DataError, match="entry 2: not an image with user, id and partition"):
        download(output=tmp_path, source="apple", base_url=server.url, num_users=1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_download_goes_on_where_it_stopped(server: Files, tmp_path: Path, how: signal.Signals) -> None:
    server.seconds_per_chunk = 0.05
    process = Prepared(command(server, tmp_path)[3:])
    try:
        deadline = time.monotonic() + 60
        while server.sent < 12 * NOISE_SIZE and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    if how == signal.SIGINT:
        assert (process.returncode, errors) == (
            130,
            "fedflair: download: stopped; run the same command again to go on from here\n",
        )
    else:
        assert process.returncode == -signal.SIGKILL
    half = {p: partial_path(tmp_path / p[1:]) for p in archive_paths() if partial_path(tmp_path / p[1:]).exists()}
    sizes = {path: partial.stat().st_size for path, partial in half.items()}
    whole = {path for path in archive_paths() if (tmp_path / path[1:]).is_file()}
    assert whole
    assert any(sizes.values())
    server.seconds_per_chunk = 0
    server.log.clear()
    assert prepared.run(command(server, tmp_path)[3:]).returncode == 0
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}
    for path in archive_paths():
        there = sizes.get(path, 0)
        complete = path in whole or there == len(server.content[path])
        assert server.gets(path) == ([] if complete else [f"bytes={there}-"] if there else [""])
    assert not list(tmp_path.rglob("*.partial*"))


def test_a_disk_that_fills_on_the_way(server: Files, tmp_path: Path) -> None:
    """A limit on the size of a file fails as a full disk does: in the middle of a write."""
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command(server, tmp_path)]
    failed = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert ".tar.gz.partial: cannot be written (File too large): free some space" in failed.stderr
    assert not list(tmp_path.rglob("*.tar.gz"))
    server.log.clear()
    download(output=tmp_path, source="apple", base_url=server.url)
    assert images_of(tmp_path) == {r.image_id: r.image for r in records()}
    assert f"bytes={64 * 1024}-" in [asked for _, _, asked, _ in server.log]


def test_the_manifest_says_what_is_there(server: Files, tmp_path: Path) -> None:
    download(output=tmp_path, source="apple", base_url=server.url, labels_only=True)
    manifest = json.loads((tmp_path / "download.json").read_text())
    assert manifest["where"] == {"address": server.url}
    assert manifest["files"][LABELS[1:]] == {"size": len(server.content[LABELS])}
    (tmp_path / "download.json").write_text("{")
    with pytest.raises(DataError, match=r"download\.json: damaged; remove it"):
        download(output=tmp_path, source="apple", base_url=server.url, labels_only=True)
