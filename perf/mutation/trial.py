"""One mutant against the tests: which of them, in which order, and what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mutation.changes import Mutant
from mutation.covering import PYTEST, Covering
from mutation.sample import KERNELS
from mutation.trees import Tree

# What is executed where coverage does not look: folders of tests by the file, or folder of files, that they are about.
BY_HAND = {
    "engine/cpu/kernels": ("tests/engine/cpu", "tests/engine/test_batch_gradient.py", "tests/models/test_resnet.py"),
    "backends/ray": ("tests/backends/ray",),
}
# How much likelier a test file notices for what it costs: of the same name, folder, or room; one that calls something
# in the file; one that only imports it.
_WEIGHTS = {"name": 0.1, "folder": 0.3, "room": 0.6, "calls": 1.0, "imports": 4.0}
# Seconds of tests in the first process, most mutants' only one.
_FIRST = 40.0
# A machine with other work takes longer than when the tests were measured.
_SLOWER = 6.0
_START = 60.0
# What pytest-timeout says of a test.
_LATE = ("Failed: Timeout", "+ Timeout +")
_NOTICED = re.compile(r"^(?:FAILED|ERROR) (\S+(?:::[^\n]*?)?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """files: to run, in order. left: how many more execute the change and would take longer than the budget."""

    files: list[str]
    left: int


def plan(mutant: Mutant, covering: Covering, budget: float) -> Plan:
    """The test files for a mutant, the likeliest to notice first, within ``budget`` seconds; 0: all of them."""
    inside = PurePosixPath(mutant.file).relative_to(covering.package)
    executing = set() if mutant.room == KERNELS else covering.executing(mutant.file, mutant.lines)
    calling = covering.calling(mutant.file) if mutant.at_import else executing
    by_hand = {
        test
        for about, places in BY_HAND.items()
        if str(inside).startswith(about)
        for test in covering.files
        if test.startswith(places)
    }
    costs = {}
    for test in executing | by_hand:
        path = PurePosixPath(test).relative_to("tests")
        if path.name == f"test_{inside.stem}.py" and path.parent == inside.parent:
            nearness = "name"
        elif path.parent == inside.parent:
            nearness = "folder"
        elif path.parts[0] == inside.parts[0]:
            nearness = "room"
        else:
            nearness = "calls" if test in calling or test in by_hand else "imports"
        costs[test] = covering.files[test]["seconds"] * _WEIGHTS[nearness]
    files, spent = [], 0.0
    for test in sorted(costs, key=lambda name: (costs[name], name)):
        spent += covering.files[test]["seconds"]
        if budget and files and spent > budget:
            break
        files.append(test)
    return Plan(files, len(costs) - len(files))


def tried(mutant: Mutant, tree: Tree, covering: Covering, budget: float) -> dict[str, Any]:
    """``status`` (noticed, timeout or survived), ``by`` what, ``seconds``, ``files`` run, number of them ``left``."""
    planned = plan(mutant, covering, budget)
    result: dict[str, Any] = {"status": "survived", "by": None, "seconds": 0.0, "files": [], "left": planned.left}
    tree.write(mutant.file, mutant.changed)
    try:
        for files in _batches(planned.files, covering):
            done = _run(tree, covering, files)
            result["seconds"] = round(result["seconds"] + done[1], 1)
            result["files"] += files
            if done[0] is not None:
                return {**result, "status": done[0], "by": done[2]}
    finally:
        tree.write(mutant.file, mutant.source)
    return result


def _batches(files: list[str], covering: Covering) -> list[list[str]]:
    first: list[str] = []
    spent = 0.0
    for test in files:
        spent += covering.files[test]["seconds"]
        if first and spent > _FIRST:
            break
        first.append(test)
    return [batch for batch in (first, files[len(first) :]) if batch]


def _run(tree: Tree, covering: Covering, files: list[str]) -> tuple[str | None, float, str | None]:
    """(status where something was noticed, seconds, by what)."""
    facts = [covering.files[test] for test in files]
    each = _START + _SLOWER * max(fact["slowest"] for fact in facts)
    whole = _START + _SLOWER * sum(fact["seconds"] for fact in facts)
    failing = [word for fact in facts for test in fact["failing"] for word in ("--deselect", test)]
    done = tree.run((*PYTEST, "-x", "-q", "-rfE", f"--timeout={each:.0f}", *failing, *files), whole)
    match done.code:
        case 0 | 5:
            return None, done.seconds, None
        case None:
            return "timeout", done.seconds, "no end"
        case code if code in (1, 2) or code < 0 or code > 5:
            names = _NOTICED.findall(done.output)
            by = names[0] if names else f"exit status {code}"
            late = any(sign in done.output for sign in _LATE)
            return "timeout" if late else "noticed", done.seconds, by
    raise SystemExit(f"pytest ended with {done.code}:\n{done.output}")


def primed(tree: Tree, program: str, cache: Path) -> None:
    """Fills the cache that every run starts from by a Python program in the unchanged copy."""
    done = tree.run(("-c", program), None, {"XDG_CACHE_HOME": str(cache)})
    if done.code:
        raise SystemExit(f"the unchanged copy does not run:\n{done.output}")
