"""Fetching over HTTP from a real server that drops, truncates, lies and changes its files."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.download.patience import Patience
from fedflair.data.download.transfer import RemoteFile, fetch, partial_path, probe, write_all
from fedflair.errors import DataError, Interrupted
from tests.data.download.fault_server import Fault, Files, etag, serving
from tests.properties import examples

CONTENT = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[::-1]
HASTY = Patience(attempts=4, first_wait=0.001, longest_wait=0.002, timeout=5)


def get(files: Files, path: Path, patience: Patience = HASTY, **options: Any) -> Path:
    fetch(RemoteFile(files.url + "/f", path, **options), patience, threading.Event(), lambda there: None)
    return path


def leftovers(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file != path)


def test_a_file_comes_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    reports: list[int] = []
    with serving(Files({"/f": CONTENT})) as files:
        fetch(RemoteFile(files.url + "/f", tmp_path / "a" / "f"), HASTY, threading.Event(), reports.append)
    assert (tmp_path / "a" / "f").read_bytes() == CONTENT
    assert leftovers(tmp_path / "a" / "f") == []
    assert reports[-1] == 100_000


def test_an_empty_file(tmp_path: Path) -> None:
    with serving(Files({"/f": b""})) as files:
        assert get(files, tmp_path / "f").read_bytes() == b""


@examples(15, keeps_fixtures=True)
@given(st.lists(st.integers(1, 40_000), max_size=4), st.booleans())
def test_dropped_connections_go_on_where_they_stopped(tmp_path: Path, drops: list[int], etags: bool) -> None:
    (tmp_path / "f").unlink(missing_ok=True)
    with serving(Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=n) for n in drops]}, etags=etags)) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
        # A reset may take bytes that were on their way with it, so that a few come twice; an end never does.
        if all(drop % 2 == 0 for drop in drops):
            assert files.sent == 100_000
            starts = np.cumsum([0, *drops])[: len(files.gets("/f"))]
            assert files.gets("/f") == [f"bytes={start}-" if start else "" for start in starts]


def test_without_ranges_the_file_starts_anew_instead_of_being_spliced(tmp_path: Path) -> None:
    faults = [Fault(drop_after=70_000), Fault(ignore_range=True)]
    with serving(Files({"/f": CONTENT}, faults={"/f": faults})) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
        assert files.gets("/f") == ["", "bytes=70000-"]


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_is_not_spliced(tmp_path: Path, heeds_if_range: bool) -> None:
    faults = [Fault(drop_after=70_000)]
    with serving(Files({"/f": CONTENT}, faults={"/f": faults})) as files:
        stopped = Patience(attempts=1, first_wait=0.001)
        with pytest.raises(DataError, match="given up"):
            fetch(RemoteFile(files.url + "/f", tmp_path / "f"), stopped, threading.Event(), lambda there: None)
        assert partial_path(tmp_path / "f").stat().st_size == 70_000
        files.content["/f"] = OTHER
        files.faults["/f"] = [Fault(ignore_if_range=not heeds_if_range)]
        assert get(files, tmp_path / "f").read_bytes() == OTHER


DATES = ["Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"]


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("named_by", ["weak tag", "date", "weak tag and date"])
def test_a_version_that_only_a_weak_tag_or_a_date_names(
    tmp_path: Path, changes: bool, heeds_if_range: bool, named_by: str
) -> None:
    """A weak tag may not stand in If-Range, a date may; a change is seen whether or not the server looks at that."""
    dates = {"/f": DATES[0]} if "date" in named_by else {}
    faults = {"/f": [Fault(drop_after=70_000)]}
    with serving(Files({"/f": CONTENT}, faults=faults, etags="tag" in named_by, weak=True, dates=dates)) as files:
        with pytest.raises(DataError, match="given up"):
            get(files, tmp_path / "f", patience=Patience(1, 0.001))
        if changes:
            files.content["/f"] = OTHER
            if dates:
                files.dates["/f"] = DATES[1]
        files.faults["/f"] = [Fault(ignore_if_range=not heeds_if_range)]
        assert get(files, tmp_path / "f").read_bytes() == files.content["/f"]
        asked = next(headers for *_, headers in files.log[1:])
        assert asked["Range"] == "bytes=70000-"
        assert asked.get("If-Range") == (DATES[0] if dates else None)
        assert len(files.gets("/f")) == (3 if changes and not (heeds_if_range and dates) else 2)


def test_a_strong_tag_stands_in_if_range(tmp_path: Path) -> None:
    faults = {"/f": [Fault(drop_after=70_000)]}
    with serving(Files({"/f": CONTENT}, faults=faults, dates={"/f": DATES[0]})) as files:
        get(files, tmp_path / "f")
        assert files.log[1][3]["If-Range"] == etag(CONTENT)


@pytest.mark.parametrize("there", [99_999, 100_000, 100_001])
def test_a_partial_file_a_byte_short_or_over(tmp_path: Path, there: int) -> None:
    with serving(Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=50_000)]})) as files:
        with pytest.raises(DataError):
            get(files, tmp_path / "f", patience=Patience(1, 0.001))
        partial_path(tmp_path / "f").write_bytes((CONTENT + b"x")[:there])
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
        assert files.gets("/f")[1:] == {99_999: ["bytes=99999-"], 100_000: [], 100_001: [""]}[there]


@pytest.mark.parametrize("off", [-1, 1])
def test_a_server_that_sends_a_byte_less_or_more_than_it_says(tmp_path: Path, off: int) -> None:
    always = {"/f": Fault(claimed_size=100_000 - off)}
    error = pytest.raises(DataError, match=r"given up after 2 tries .*are expected")
    with serving(Files({"/f": CONTENT}, always=always)) as files, error:
        get(files, tmp_path / "f", size=100_000)
    assert not (tmp_path / "f").exists()


def test_a_part_of_a_file_of_another_size_is_not_taken(tmp_path: Path) -> None:
    """Tags may say the same of both: the size in Content-Range does not."""
    with serving(Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=50_000)]}, etags=False)) as files:
        with pytest.raises(DataError):
            get(files, tmp_path / "f", patience=Patience(1, 0.001))
        files.content["/f"] = OTHER + b"more"
        assert get(files, tmp_path / "f").read_bytes() == OTHER + b"more"


@pytest.mark.parametrize("name", ["f.partial", "f.partial.json"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "link to a folder"])
def test_nothing_is_written_through_a_planted_link(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "folder").mkdir()
    victim, planted = tmp_path / "victim", tmp_path / "out" / name
    with serving(Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=50_000)]})) as files:
        with pytest.raises(DataError):
            fetch(
                RemoteFile(files.url + "/f", tmp_path / "out" / "f"),
                Patience(1, 0.001),
                threading.Event(),
                lambda n: None,
            )
        if kind != "dangling link":
            victim.write_bytes(planted.read_bytes())
        kept = victim.read_bytes() if victim.exists() else None
        planted.unlink()
        if kind == "second name":
            planted.hardlink_to(victim)
        else:
            planted.symlink_to(tmp_path / "folder" if kind == "link to a folder" else victim)
        assert get(files, tmp_path / "out" / "f").read_bytes() == CONTENT
    assert (victim.read_bytes() if victim.exists() else None) == kept
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["f"]


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "f").symlink_to(tmp_path / "victim")
    with serving(Files({"/f": CONTENT})) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "f").is_symlink()


@pytest.mark.parametrize("what", ["folder of the file", "partial", "sidecar", "file"])
def test_files_and_folders_in_the_place_of_each_other(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a" / "f"
    if what == "folder of the file":
        (tmp_path / "a").write_text("")
    else:
        (tmp_path / "a" / {"partial": "f.partial", "sidecar": "f.partial.json", "file": "f"}[what]).mkdir(parents=True)
    with serving(Files({"/f": CONTENT})) as files, pytest.raises(DataError, match=rf"{tmp_path}/a/f.*: ") as raised:
        get(files, path)
    assert "a file stands where a folder should be" in str(raised.value) or "not permitted" in str(raised.value)


def test_what_an_unbuffered_file_does_not_take_at_once_is_written_next() -> None:
    class Little(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:3]))

    little = Little()
    write_all(little, CONTENT[:1000])
    assert little.getvalue() == CONTENT[:1000]


def test_what_came_from_another_address_is_not_gone_on_with(tmp_path: Path) -> None:
    """Of a mirror that names no versions, a part would fit by its size."""
    broken = Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=50_000)]}, etags=False)
    with serving(broken) as first, pytest.raises(DataError):
        get(first, tmp_path / "f", patience=Patience(1, 0.001))
    with serving(Files({"/f": OTHER}, etags=False)) as second:
        assert get(second, tmp_path / "f").read_bytes() == OTHER
        assert second.gets("/f") == [""]


def test_a_part_that_starts_elsewhere_is_not_taken(tmp_path: Path) -> None:
    faults = [Fault(drop_after=50_000), Fault(wrong_start=True)]
    with serving(Files({"/f": CONTENT}, faults={"/f": faults})) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_file_is_given_up(tmp_path: Path) -> None:
    with serving(Files({"/f": CONTENT}, faults={"/f": [Fault(drop_after=50_000)]})) as files:
        with pytest.raises(DataError):
            get(files, tmp_path / "f", patience=Patience(1, 0.001))
        with partial_path(tmp_path / "f").open("ab") as partial:
            partial.write(b"x" * 60_000)
        assert get(files, tmp_path / "f").read_bytes() == CONTENT


def test_a_partial_file_of_unknown_origin_is_not_used(tmp_path: Path) -> None:
    partial_path(tmp_path / "f").write_bytes(b"x" * 5_000)
    with serving(Files({"/f": CONTENT})) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
        assert files.gets("/f") == [""]


def test_server_errors_pass(tmp_path: Path) -> None:
    faults = [Fault(status=500), Fault(status=503), Fault(status=429)]
    with serving(Files({"/f": CONTENT}, faults={"/f": faults})) as files:
        assert get(files, tmp_path / "f").read_bytes() == CONTENT
        assert len(files.gets("/f")) == 4


def test_server_errors_that_do_not_pass(tmp_path: Path) -> None:
    with serving(Files({"/f": CONTENT}, always={"/f": Fault(status=500)})) as files:
        with pytest.raises(DataError, match=r"/f: given up after 4 tries that brought nothing new \(500 Internal"):
            get(files, tmp_path / "f")
        assert len(files.gets("/f")) == 4


@pytest.mark.parametrize(
    ("status", "remedy"), [(403, "access is refused"), (404, "check --base_url"), (410, "not there")]
)
def test_refusals_are_not_retried(tmp_path: Path, status: int, remedy: str) -> None:
    with serving(Files({"/f": CONTENT}, always={"/f": Fault(status=status)})) as files:
        with pytest.raises(DataError, match=f"answered {status} .*{remedy}") as raised:
            get(files, tmp_path / "f")
        assert "\n" not in str(raised.value)
        assert len(files.gets("/f")) == 1


def test_a_server_that_promises_more_than_it_sends(tmp_path: Path) -> None:
    always = {"/f": Fault(claimed_size=120_000)}
    error = pytest.raises(DataError, match=r"given up after 4 tries .*go on from here")
    with serving(Files({"/f": CONTENT}, always=always)) as files, error:
        get(files, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_size_that_contradicts_what_is_expected(tmp_path: Path) -> None:
    error = pytest.raises(DataError, match=r"now says 100,000 bytes, 99,999 are expected.* another revision")
    with serving(Files({"/f": CONTENT})) as files:
        with error:
            get(files, tmp_path / "f", size=99_999)
        assert len(files.gets("/f")) == 2
    assert not (tmp_path / "f").exists()


def test_what_the_check_rejects_once_is_fetched_anew(tmp_path: Path) -> None:
    seen: list[int] = []

    def check(path: Path) -> None:
        seen.append(path.stat().st_size)
        if len(seen) == 1:
            raise DataError("bad")

    with serving(Files({"/f": CONTENT})) as files:
        assert get(files, tmp_path / "f", check=check).read_bytes() == CONTENT
        assert files.gets("/f") == ["", ""]
    assert seen == [100_000, 100_000]


def test_what_the_check_rejects_twice_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    def check(path: Path) -> None:
        raise DataError("not a photograph")

    with serving(Files({"/f": CONTENT})) as files:
        with pytest.raises(DataError, match="not a photograph"):
            get(files, tmp_path / "f", check=check)
        assert files.gets("/f") == ["", ""]
    assert leftovers(tmp_path / "f") == []


def test_a_stop_keeps_what_has_come(tmp_path: Path) -> None:
    stop = threading.Event()
    with serving(Files({"/f": CONTENT * 10})) as files:
        with pytest.raises(Interrupted, match="run the same command again"):
            fetch(RemoteFile(files.url + "/f", tmp_path / "f"), HASTY, stop, lambda there: stop.set())
        kept = partial_path(tmp_path / "f").stat().st_size
        assert 0 < kept < 1_000_000
        assert get(files, tmp_path / "f").read_bytes() == CONTENT * 10
        assert files.gets("/f") == ["", f"bytes={kept}-"]


def test_nobody_listens(tmp_path: Path) -> None:
    with serving(Files({})) as files:
        pass
    with pytest.raises(DataError, match="Connection refused"):
        get(files, tmp_path / "f")


def test_probe_tells_the_size_even_without_head() -> None:
    for no_head in (False, True):
        with serving(Files({"/f": CONTENT}, no_head=no_head)) as files:
            assert probe(files.url + "/f", HASTY, threading.Event()).size == 100_000
            assert files.gets("/f") == (["bytes=0-0"] if no_head else [])


def test_credentials_do_not_follow_a_redirect(tmp_path: Path) -> None:
    with serving(Files({"/f": CONTENT})) as target, serving(Files({})) as files:
        files.redirects["/f"] = target.url + "/f"
        headers = {"authorization": "Bearer secret", "X-Other": "kept"}
        assert get(files, tmp_path / "f", headers=headers).read_bytes() == CONTENT
        assert probe(files.url + "/f", HASTY, threading.Event(), headers).size == 100_000
        assert [asked[3].get("Authorization") for asked in files.log] == ["Bearer secret"] * 2
        assert [asked[3].get("Authorization") for asked in target.log] == [None] * 2
        assert [asked[3].get("X-Other") for asked in target.log] == ["kept"] * 2
        assert [asked[0] for asked in target.log] == ["GET", "HEAD"]


def test_a_redirect_to_a_local_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with serving(Files({}, redirects={"/f": (tmp_path / "secret").as_uri()})) as files, pytest.raises(DataError):
        get(files, tmp_path / "f")
    assert not (tmp_path / "f").exists()
