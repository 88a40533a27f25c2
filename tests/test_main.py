"""The package as a program."""

from __future__ import annotations

import subprocess
import sys


def refused(module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, "frobnicate"], capture_output=True, text=True, check=False)


def test_the_package_runs_as_the_command_line_does() -> None:
    package, table = refused("fedflair"), refused("fedflair.cli")
    assert package.returncode == table.returncode == 2
    assert package.stderr == table.stderr != ""
