"""How many realistic single changes to the code does the suite notice?

    python perf/mutate.py --list --rooms privacy           # what would be tried, as diffs; runs nothing
    python perf/mutate.py --num 300 --workers 2            # tries them; goes on where it was stopped
    python perf/mutate.py --retry                          # the survivors again, after tests were written
    python perf/mutate.py --only src/fedflair/sampling.py:40 --budget 0

First every test file is run once under coverage: which lines of the package does it execute, in the programs that it
starts as well, and what does it cost? Later runs measure new and changed test files only. Then each mutant is written
into a private copy of the checkout, and the test files that execute its lines run there until one fails: the likeliest
for their cost first. A run that does not end counts as noticed. What tests survive is listed with the change; what may
survive stands with its reason in ``mutants_accepted.yaml``, by the text of the line, and is not tried.

The sample is the same for the same seed, spread over rooms and kinds of change; a larger one contains a smaller one.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mutation.changes import Mutant
from mutation.covering import Covering
from mutation.sample import KERNELS, Accepted, candidates, drawn
from mutation.trees import Tree, copied, each_in_a_tree
from mutation.trial import primed, tried

ROOT = Path(__file__).parents[1]
ROOMS = (
    "data", "privacy", "federated", "training", "evaluation", "report", "sweep", "backends", "metrics", "runs",
    "config", "engine", "system", KERNELS,
)  # fmt: skip
# So that the kernels are compiled once, not for each mutant.
PRIME = "from fedflair.engine.cpu.kernels import library; library()"


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=300, help="Mutants to try.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), help="Folders or modules of the package.")
    parser.add_argument("--only", nargs="+", metavar="FILE[:LINE]", help="Every mutant there, instead of a sample.")
    parser.add_argument("--list", action="store_true", help="Print the mutants, and run nothing.")
    parser.add_argument("--retry", action="store_true", help="Try the survivors again.")
    parser.add_argument("--workers", type=int, default=2, help="Copies of the checkout at work at a time.")
    parser.add_argument("--budget", type=float, default=240, help="Seconds of tests for a mutant; 0: no end.")
    parser.add_argument("--folder", type=Path, help="For coverage.json and results.jsonl. Default: .cache/mutants.")
    parser.add_argument("--checkout", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--package", default="src/fedflair", help=argparse.SUPPRESS)
    parser.add_argument("--prime", default=PRIME, help=argparse.SUPPRESS)
    parser.add_argument("--accepted", type=Path, default=Path(__file__).with_name("mutants_accepted.yaml"))
    return parser.parse_args()


def chosen(asked: argparse.Namespace, everything: list[Mutant]) -> list[Mutant]:
    """The mutants to try."""
    if asked.only:
        places = set(asked.only)
        return [mutant for mutant in everything if places & {mutant.file, mutant.place}]
    return drawn(everything, asked.num, asked.seed, asked.checkout)


def known_results(file: Path) -> dict[str, dict[str, Any]]:
    """Results by mutant; the last one of a mutant counts."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


@contextmanager
def trees_of(asked: argparse.Namespace) -> Iterator[list[Tree]]:
    """A copy of the checkout for each worker; nothing of them, nor of what ran there, is left."""
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        cache = Path(folder, "c")
        cache.mkdir()
        trees = [copied(asked.checkout, Path(folder, str(k)), asked.package, cache) for k in range(asked.workers)]
        primed(trees[0], asked.prime, cache)
        yield trees


def try_all(mutants: list[Mutant], trees: list[Tree], covering: Covering, results: Path, budget: float) -> None:
    """Tries the mutants, a worker a copy, and writes a line a mutant."""
    lock = threading.Lock()
    count = iter(range(1, len(mutants) + 1))

    def one(mutant: Mutant, tree: Tree) -> None:
        found = tried(mutant, tree, covering, budget)
        facts = {"key": mutant.key, "place": mutant.place, "kind": mutant.kind, "room": mutant.room}
        with lock, results.open("a") as file:
            file.write(json.dumps({**facts, **found, "diff": mutant.diff}) + "\n")
            words = f"{found['status']} ({found['by']}, {found['seconds']} s)"
            print(f"{next(count)}/{len(mutants)} {mutant.place} {mutant.kind}: {words}", flush=True)

    each_in_a_tree(trees, mutants, one)


def table(mutants: list[Mutant], results: dict[str, dict[str, Any]], accepted: Accepted) -> str:
    """Rates by room, and the survivors."""
    counted = [mutant for mutant in mutants if mutant.key in results and accepted.reason(mutant) is None]
    survivors = [mutant for mutant in counted if results[mutant.key]["status"] == "survived"]
    totals, lost = Counter(m.room for m in counted), Counter(m.room for m in survivors)
    lines = []
    for mutant in survivors:
        left = results[mutant.key]["left"]
        lines += [mutant.diff, f"  survived {len(results[mutant.key]['files'])} test files; {left} more not run", ""]
    for mutant in mutants:
        if (reason := accepted.reason(mutant)) is not None:
            lines.append(f"accepted: {mutant.place} {mutant.kind}: {reason}")
    lines.append(f"{'room':<12} noticed")
    for room, total in [*totals.items(), ("all", len(counted))]:
        missed = len(survivors) if room == "all" else lost[room]
        lines.append(f"{room:<12} {total - missed:>4} of {total:<4} {(total - missed) / max(total, 1):.0%}")
    return "\n".join(lines)


def end(number: int, frame: object) -> NoReturn:
    """Lets what runs be ended, and the copies be removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Does what was asked for."""
    asked = options()
    asked.checkout = asked.checkout.resolve()
    folder: Path = asked.folder or asked.checkout / ".cache" / "mutants"
    accepted = Accepted(asked.accepted)
    everything = candidates(asked.checkout, asked.package, asked.rooms)
    for entry in accepted.stale(candidates(asked.checkout, asked.package)):
        print(f"accepted, but no change to today's code: {entry}", file=sys.stderr)
    mutants = chosen(asked, everything)
    if asked.list:
        print("\n\n".join(mutant.diff for mutant in mutants))
        return
    signal.signal(signal.SIGTERM, end)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    known = known_results(results)
    again = {"survived"} if asked.retry or asked.only else set()
    tested = {key for key, row in known.items() if row["status"] not in again}
    left = [mutant for mutant in mutants if accepted.reason(mutant) is None and mutant.key not in tested]
    with trees_of(asked) as trees:
        covering = Covering(asked.checkout, asked.package, folder / "coverage.json")
        covering.update(trees, lambda words: print(words, flush=True))
        try_all(left, trees, covering, results, asked.budget)
    print(table(mutants, known_results(results), accepted))


if __name__ == "__main__":
    main()
