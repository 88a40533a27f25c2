"""People's own modules: found, imported, and told apart by the digest of their file."""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from fedflair.errors import ConfigError
from fedflair.system.terminal import one_line


def own_module(name: str, asked: str) -> ModuleType:
    """The module of that name, imported once a process.

    asked: who asks for it, which the message begins with. Raises ConfigError where it cannot be imported.
    """
    # As for ``python FILE``: what lies where the command is given can be imported.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    # It is the user's own code, and can fail in any way that code can.
    except Exception as error:
        raise ConfigError(
            f"{asked}: {name} cannot be imported ({type(error).__name__}: {one_line(str(error))[:200]}); it must be "
            "installed, in the current folder, or on PYTHONPATH"
        ) from error


def file_digest(module: ModuleType) -> str | None:
    """SHA-256 of the file that the module is in, hexadecimal; None where it has none."""
    path = getattr(module, "__file__", None)
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def installed_modules(group: str) -> dict[str, str]:
    """Modules that installed packages name in an entry-point group -> the package that names them, in order."""
    found = sorted(entry_points(group=group), key=lambda entry: entry.value)
    return {entry.module: entry.dist.name if entry.dist else entry.name for entry in found}
