"""Which test files execute which lines of the package, and what each file costs."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from mutation.trees import Tree, each_in_a_tree

# In programs that tests start, too; what is killed writes nothing.
_SETTINGS = """[run]
source = {package}
parallel = true
relative_files = true
concurrency = thread, multiprocessing
patch = _exit
data_file = {data}/lines
disable_warnings = no-data-collected, module-not-measured
"""
_AT_START = "import coverage\ncoverage.process_startup()\n"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", re.MULTILINE)
_DURATION = re.compile(r"^ *([\d.]+)s (?:call|setup|teardown) ", re.MULTILINE)
# What pytest ends with where a file has none, or none that this machine can run.
_NO_TESTS = 5
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0")


def measure(tree: Tree, test_file: str) -> dict[str, Any]:
    """What a test file does in an unchanged copy.

    ``digest`` of its text, ``seconds`` that it takes, ``slowest`` seconds of one of its tests, ``failing`` tests, and
    ``lines`` executed: by file of the package, the sorted line numbers.
    """
    extra = tree.folder / "coverage"
    extra.mkdir(exist_ok=True)
    for old in extra.glob("lines*"):
        old.unlink()
    (extra / "settings").write_text(_SETTINGS.format(package=tree.root / tree.package, data=extra))
    (extra / "sitecustomize.py").write_text(_AT_START)
    import coverage

    paths = [str(tree.root / Path(tree.package).parent), str(extra), str(Path(coverage.__file__).parents[1])]
    environment = {"COVERAGE_PROCESS_START": str(extra / "settings"), "PYTHONPATH": ":".join(paths)}
    asked = (*PYTEST, "-q", "--durations=1", "--durations-min=0", "-rfE")
    done = tree.run((*asked, test_file), 1800, environment)
    if done.code not in (0, 1, _NO_TESTS):
        raise SystemExit(f"{test_file} does not run:\n{done.output}")
    lines: dict[str, set[int]] = {}
    for file in sorted(extra.glob("lines*")):
        data = coverage.CoverageData(str(file))
        # What a killed process has left may be half a file.
        with contextlib.suppress(coverage.CoverageException):
            data.read()
            for name in data.measured_files():
                lines.setdefault(name, set()).update(data.lines(name) or ())
    failing = _FAILED.findall(done.output)
    if failing:
        # Some tests look at what a process imports or takes: only those count that fail without coverage as well.
        failing = _FAILED.findall(tree.run((*PYTEST, "-q", "-rfE", test_file), 1800).output)
    return {
        "digest": _digest(tree.root / test_file),
        "seconds": round(done.seconds, 1),
        "slowest": max(map(float, _DURATION.findall(done.output)), default=0.0),
        "failing": failing,
        "lines": {name: sorted(found) for name, found in sorted(lines.items())},
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


class Covering:
    """The map from lines to test files, kept in a JSON file, with the sources that its line numbers belong to."""

    def __init__(self, checkout: Path, package: str, kept: Path) -> None:
        self.checkout, self.package, self.kept = checkout, package, kept
        known = json.loads(kept.read_text()) if kept.exists() else {}
        self.files: dict[str, dict[str, Any]] = known.get("files", {})
        self.texts: dict[str, str] = known.get("texts", {})
        self._now: dict[str, dict[int, int]] = {}
        self._lock = threading.Lock()

    def update(self, trees: list[Tree], tell: Callable[[str], None]) -> None:
        """Measures test files that are new or changed, in all the trees at a time, and forgets those that are gone."""
        present = [str(path.relative_to(self.checkout)) for path in sorted(self.checkout.glob("tests/**/test_*.py"))]
        self.files = {name: facts for name, facts in self.files.items() if name in present}
        missing = [name for name in present if self.files.get(name, {}).get("digest") != _digest(self.checkout / name)]
        if missing and not self.files:
            self.texts = self._sources()
        elif missing:
            # Line numbers of all files must belong to the same text.
            self._translate()

        def one(name: str, tree: Tree) -> None:
            self.files[name] = measure(tree, name)
            tell(f"{name}: {self.files[name]['seconds']} s, {len(self.files[name]['failing'])} failing")
            self._keep()

        each_in_a_tree(trees, missing, one)

    def _keep(self) -> None:
        with self._lock:
            temporary = self.kept.with_suffix(".partial")
            temporary.write_text(json.dumps({"files": dict(self.files), "texts": self.texts}))
            temporary.replace(self.kept)

    def _sources(self) -> dict[str, str]:
        folder = self.checkout / self.package
        return {str(path.relative_to(self.checkout)): path.read_text() for path in sorted(folder.rglob("*.py"))}

    def _translate(self) -> None:
        for facts in self.files.values():
            facts["lines"] = {name: self._lines_now(name, lines) for name, lines in facts["lines"].items()}
        self.texts = self._sources()
        self._now = {}

    def _lines_now(self, name: str, lines: list[int]) -> list[int]:
        moved = self._moved(name)
        return sorted({moved[line] for line in lines if line in moved})

    def _moved(self, name: str) -> Mapping[int, int]:
        """Where lines of the kept text are in the file as it is."""
        if name not in self._now:
            path = self.checkout / name
            old = self.texts.get(name, "").splitlines()
            new = path.read_text().splitlines() if path.exists() else []
            blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
            self._now[name] = {a + i + 1: b + i + 1 for a, b, size in blocks for i in range(size)}
        return self._now[name]

    def executing(self, name: str, lines: range) -> set[str]:
        """Test files that execute any of these lines; those of the last known line before them, where they are new."""
        moved = self._moved(name)
        known = set(moved.values())
        wanted = set(lines) & known or {max((line for line in known if line < lines.start), default=1)}
        return self._executing(name, {before for before, now in moved.items() if now in wanted})

    def calling(self, name: str) -> set[str]:
        """Test files that execute more of a file than what its import does."""
        functions = (node for node in ast.walk(ast.parse(self.texts.get(name, ""))) if isinstance(node, _FUNCTIONS))
        inner = {
            line
            for node in functions
            for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            if node.body[0].lineno > node.lineno
        }
        return self._executing(name, inner)

    def _executing(self, name: str, lines: set[int]) -> set[str]:
        return {test for test, facts in self.files.items() if not lines.isdisjoint(facts["lines"].get(name, ()))}
