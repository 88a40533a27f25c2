"""How commands end: a full disk, no permission, no memory, a signal. One line each, and nothing half-written left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedflair.cli import guarded, main
from tests import prepared
from tests.limits import assert_one_line, fedflair, hidden
from tests.processes import descendants

FULL = "cannot be written (File too large): free some space"
WRITERS = {
    "synthesize": ("synthesize", "--num_users", "10", "--processes", "1", "--output"),
    "synthesize apple": ("synthesize", "--num_users", "10", "--processes", "1", "--format", "apple", "--output"),
    "synthesize hub": ("synthesize", "--num_users", "10", "--processes", "1", "--format", "huggingface", "--output"),
    "convert": ("convert", "STORE", "--layout", "pfl"),
    "prepare": ("prepare", "--source", "STORE", "--output"),
    "describe": ("describe", "STORE", "--output"),
    "epsilon": ("epsilon", "--rounds", "2", "--delta", "1e-5", "--sampling_rate", "0.1", "--epsilon", "2", "--plot"),
}


def writer(name: str, store: Path, output: Path) -> list[str | Path]:
    words: list[str | Path] = [store if word == "STORE" else word for word in WRITERS[name]]
    if name == "convert":
        return [words[0], words[1], output, *words[2:]]
    return [*words, output]


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_store: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out" / "new"
    done = prepared.run(list(map(str, writer(name, tiny_store, output))), file_size=1000)
    assert_one_line(done, str(output), FULL)
    assert hidden(tmp_path) == []
    assert not output.exists() or not any(output.iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_permission_is_one_line(tiny_store: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    done = fedflair(*writer(name, tiny_store, tmp_path / "out" / "new"))
    assert_one_line(done, str(tmp_path / "out"), "Permission denied", "check the permissions")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_where_a_folder_should_be_is_one_line(
    tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "out").write_text("mine")
    # In this process: it takes no limits, and each of the commands is started in the tests above.
    words = list(map(str, writer(name, tiny_store, tmp_path / "out" / "new")))
    status = main(words)
    assert_one_line(subprocess.CompletedProcess(words, status, *capfd.readouterr()), str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_behind_the_output_is_one_line(tiny_store: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fedflair.cli", "describe", str(tiny_store), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert_one_line(done, "fedflair: output: cannot be written (No space left on device)")


@pytest.fixture(scope="module")
def converted(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("converted") / "pfl.hdf5"
    assert fedflair("convert", tiny_store, source, "--layout", "pfl").returncode == 0
    return source


@pytest.mark.parametrize("megabytes", [260, 330, 400])
def test_a_want_of_memory_ends_in_one_line(converted: Path, tmp_path: Path, megabytes: int) -> None:
    done = fedflair("prepare", "--source", converted, "--output", tmp_path / "s.hdf5", memory=megabytes << 20)
    if done.returncode:
        assert_one_line(done, "fedflair: out of memory (")
        assert hidden(tmp_path) == []


def test_what_nobody_foresaw_is_one_line_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def action() -> None:
        raise LookupError("a\nb")

    monkeypatch.delenv("FEDFLAIR_DEBUG", raising=False)
    assert guarded(action) == 1
    assert capfd.readouterr().err == (
        "fedflair: internal error: LookupError: a b; set FEDFLAIR_DEBUG=1 to see where, and report it\n"
    )
    monkeypatch.setenv("FEDFLAIR_DEBUG", "1")
    assert guarded(action) == 1
    assert "Traceback (most recent call last)" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=str)
def test_synthesize_takes_its_workers_and_its_lock_along(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "s.hdf5"
    command = [sys.executable, "-m", "fedflair.cli", "synthesize", "--output", str(output), "--num_users", "2000"]
    with subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(workers := descendants(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert len(workers) == 2
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    if number != signal.SIGKILL:
        assert len(errors.splitlines()) == 1
        assert errors.startswith("fedflair: stopped")
        # No process and no file: nothing that the next one could find.
        assert list(tmp_path.iterdir()) == []
        return
    done = fedflair("synthesize", "--output", output, "--num_users", "10", "--processes", "1")
    assert done.returncode == 0, done.stderr


NO_HOME = """
import pwd

def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
"""


def test_a_user_without_a_home_and_a_name_can_work(tiny_store: Path, tmp_path: Path) -> None:
    # As in a container that is started with a user id of its own.
    (tmp_path / "sitecustomize.py").write_text(NO_HOME)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    program = "import os, sys; os.environ.pop('HOME', None); os.environ.pop('XDG_CACHE_HOME', None); "
    program += "from fedflair.cli import main; sys.exit(main(sys.argv[1:]))"

    def run(*arguments: str | Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    run("epsilon", "--rounds", "2", "--delta", "1e-5", "--sampling_rate", "0.1", "--epsilon", "2")
    options = ["--data_path", tiny_store, "--run", tmp_path / "run", "--pretrained", "false", "--image_size", "32"]
    run("train", *options, "--model", "small_cnn", "--cohort_size", "2", "--central_num_iterations", "1")
    assert not (tmp_path / "~").exists()
