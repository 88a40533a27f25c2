"""Which mutants are tried: a sample over rooms and kinds that hardly changes when the code does."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml
from mutation import kernels, python
from mutation.changes import Mutant

# The folder of C sources, and the file of it that is compiled.
_COMPILED = "exported.c"
KERNELS = "kernels"
# What pictures look like is judged by eye.
PICTURES = ("sprites.py", "plots.py", "plot.py")
_KNOWN_BY = ("file", "kind", "line", "becomes")


def candidates(checkout: Path, package: str, rooms: Sequence[str] | None = None) -> list[Mutant]:
    """All the changes to files of these rooms: folders or modules of the package, or the C kernels. None: all rooms."""
    found = []
    for path in sorted((checkout / package).rglob("*.py")):
        room = path.relative_to(checkout / package).parts[0].removesuffix(".py")
        if (rooms is None or room in rooms) and path.name not in PICTURES:
            source, name = path.read_bytes(), str(path.relative_to(checkout))
            found += [Mutant(name, room, source, span, early) for span, early in python.spans(source)]
    if rooms is None or KERNELS in rooms:
        for path in kernels.sources(checkout / package):
            source, name = path.read_bytes(), str(path.relative_to(checkout))
            found += [Mutant(name, KERNELS, source, span) for span in kernels.spans(source)]
    return found


def drawn(mutants: Iterable[Mutant], num: int, seed: int, checkout: Path) -> list[Mutant]:
    """About ``num`` of the mutants: each room by the root of its size, and in it each kind likewise.

    A larger ``num`` adds to a smaller one's. Changes that mean nothing, or do not compile, are passed over.
    """
    rooms: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        rooms[mutant.room].append(mutant)
    shares = {room: len(members) ** 0.5 for room, members in rooms.items()}
    chosen = []
    for room, members in rooms.items():
        wanted = max(1, round(num * shares[room] / sum(shares.values())))
        valid = (mutant for mutant in _shuffled(members, seed) if _is_valid(mutant, checkout))
        chosen += [mutant for _, mutant in zip(range(wanted), valid)]
    return chosen


def _shuffled(members: list[Mutant], seed: int) -> list[Mutant]:
    kinds = Counter(mutant.kind for mutant in members)

    def rank(mutant: Mutant) -> float:
        # Weighted sampling without replacement: the largest of u ** (1 / weight), with u from the mutant's own text.
        uniform = int(hashlib.sha256(f"{seed} {mutant.key}".encode()).hexdigest()[:12], 16) / 16**12
        return -(uniform ** (kinds[mutant.kind] ** 0.5))

    return sorted(members, key=rank)


def _is_valid(mutant: Mutant, checkout: Path) -> bool:
    if mutant.room != KERNELS:
        return python.is_change(mutant.source, mutant.changed)
    path = checkout / mutant.file
    with tempfile.TemporaryDirectory() as folder:
        for source in kernels.sources(path.parent):
            shutil.copy(source, folder)
        Path(folder, path.name).write_bytes(mutant.changed)
        return kernels.compiles(Path(folder, _COMPILED))


class Accepted:
    """Mutants that may survive, each with the reason: a YAML list of file, kind, line, becomes and reason."""

    def __init__(self, file: Path) -> None:
        entries = (yaml.safe_load(file.read_text()) or []) if file.exists() else []
        self._reasons = {tuple(entry[name] for name in _KNOWN_BY): entry["reason"] for entry in entries}

    def reason(self, mutant: Mutant) -> str | None:
        """Why this one may survive; None where nothing is said of it."""
        return self._reasons.get(mutant.known_by)

    def stale(self, mutants: Iterable[Mutant]) -> Iterator[str]:
        """Entries that are no change to today's code."""
        known = {mutant.known_by for mutant in mutants}
        yield from (" | ".join(entry) for entry in self._reasons if entry not in known)
