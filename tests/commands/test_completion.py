"""Completion as a shell does it: bash with the printed script."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from fedflair.cli import run as run_command
from fedflair.commands import COMMANDS


def completed(script: str, line: str) -> set[str]:
    """What bash offers for the last word of a line."""
    words = " ".join(f"'{word}'" for word in line.split(" "))
    position = len(line.split(" ")) - 1
    asked = f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={position}; COMP_LINE='{line}'\n"
    function = next(line.split("-F ")[1].split()[0] for line in script.splitlines() if line.startswith("complete "))
    asked += f"{function}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    found = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["completion", "bash"])
    script = capsys.readouterr().out
    assert set(COMMANDS) <= completed(script, "fedflair ")
    assert completed(script, "fedflair train --cohort_s") == {"--cohort_size", "--cohort_sampling"}
    assert completed(script, "fedflair train --central_privacy_mechanism gauss") == {
        "gaussian",
        "gaussian_moments_accountant",
    }
    assert completed(script, "fedflair evaluate --partition ") == {"train", "val", "test"}


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_have_a_script_with_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["completion", shell])
    script = capsys.readouterr().out
    assert all(name in script for name in (*COMMANDS, "cohort_size"))
