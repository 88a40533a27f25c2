"""The command line as a process: exit statuses, one-line errors, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedflair.cli import main
from fedflair.commands import COMMANDS


def fedflair(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedflair.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    shown = fedflair("--help")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in COMMANDS)
    probe = "import sys; from fedflair.cli import main; main(['--help']); print({'torch', 'h5py'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


def test_every_command_explains_itself_without_loading_what_computes() -> None:
    """In one process: what a command loads shows beside its name, and beside those after it."""
    probe = (
        "import contextlib, io, sys; from fedflair.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:\n"
        "        main([name, '--help'])\n"
        "    heavy = {'torch', 'scipy', 'matplotlib', 'dp_accounting'} & set(sys.modules)\n"
        "    print(name, f'fedflair {name}' in shown.getvalue(), heavy)\n"
    )
    words = [sys.executable, "-c", probe, *COMMANDS]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [f"{name} True set()" for name in COMMANDS]


def test_training_a_residual_network_imports_no_library_that_it_does_not_need(tiny_store: Path, tmp_path: Path) -> None:
    # torchvision takes 150 MB, with what it imports; SciPy, which only matrix-factorisation noise needs, 65 MB.
    options = ["--data_path", str(tiny_store), "--run", str(tmp_path / "run"), "--pretrained", "false"]
    options += ["--image_size", "32", "--cohort_size", "2", "--central_num_iterations", "1"]
    probe = (
        "import sys; from fedflair.cli import main; status = main(['train', *sys.argv[1:]]); "
        "print(status, {'torchvision', 'torch._dynamo', 'triton', 'scipy', 'sympy', 'ray'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", probe, *options], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 set()"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "--help"])
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 0
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["frobnicate"], 2, "unknown command 'frobnicate'"),
        (["describe"], 2, "store"),
        (["describe", "absent.hdf5"], 1, "absent.hdf5: no such store"),
        (["train", "--cohort_sise", "3"], 2, "did you mean cohort_size"),
        (["train", "--data_path", "absent.hdf5", "--pretrained", "false"], 1, "absent.hdf5: no such store"),
        (["report"], 2, "report: name at least one run folder"),
        (["report", "absent"], 1, "absent: no such run folder"),
        (["evaluate", "--run", "absent"], 1, "not a run folder"),
        (["prepare", "--source", "absent", "--output", "x.hdf5"], 1, "absent: no such file or folder"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert "Traceback" not in shown and "internal error" not in shown


def test_a_random_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "photo.hdf5").write_bytes(b"not an HDF5 file")
    result = fedflair("describe", str(tmp_path / "photo.hdf5"))
    assert result.returncode == 1
    assert "photo.hdf5" in result.stderr
