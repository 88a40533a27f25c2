"""How often the audit finds planted faults, and how often it blames honest paths.

    python perf/audit_power.py                              # every mechanism: 40 honest runs, 20 of each fault
    python perf/audit_power.py --repeats 5 --honest 5 --kinds banded adaptive

The last two columns tell what found a fault: the checks of an auditor who knows everything, or what somebody who sees
only noisy sums could guess. "twice the epsilon" is noise for twice the budget that is accounted; the count there is of
the guesses alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.audit.faults import (
    FAULTS,
    FAULTS_OF,
    KINDS,
    LOCAL_FAULTS,
    LOCAL_KINDS,
    audited_local,
    twice_the_epsilon,
)

from fedflair.audit.measure import AuditResult, Sizes

HONEST = "honest"
TWICE = "twice the epsilon"
Run = tuple[str, str, int, Sizes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--honest", type=int, default=40)
    parser.add_argument("--num_canaries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *LOCAL_KINDS])
    parser.add_argument("--faults", nargs="+", help="These only; all, and honest paths, if not given.")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    sizes = Sizes(num_rounds=arguments.rounds, num_canaries=arguments.num_canaries)
    print(f"{'path':<29}{'fault':<34}{'runs':>5}{'found':>7}{'by checks':>11}{'by guesses':>12}")
    with ProcessPoolExecutor(arguments.workers) as pool:
        for kind in arguments.kinds:
            for fault in faults_of(kind):
                if arguments.faults and fault not in arguments.faults:
                    continue
                # Noise follows from the seed and the sum: paths of equal seeds have equal noise and equal luck.
                first = zlib.crc32(f"{kind}, {fault}".encode())
                seeds = range(first, first + (arguments.honest if fault == HONEST else arguments.repeats))
                found = list(pool.map(one, [(kind, fault, seed, sizes) for seed in seeds]))
                shown = [sum(results) for results in zip(*found, strict=True)]
                print(f"{kind:<29}{fault:<34}{len(found):>5}{shown[0]:>7}{shown[1]:>11}{shown[2]:>12}", flush=True)


def faults_of(kind: str) -> Iterator[str]:
    yield HONEST
    if kind in LOCAL_KINDS:
        yield from LOCAL_FAULTS
        return
    yield TWICE
    yield from FAULTS
    yield from FAULTS_OF.get(kind, {})


def one(run: Run) -> tuple[bool, bool, bool]:
    """(found at all, by direct checks, by guesses) of one run."""
    kind, fault, seed, sizes = run
    if kind in LOCAL_KINDS:
        sizes = Sizes(num_rounds=5, num_canaries=sizes.num_canaries)
        result = audited_local(kind, seed, sizes, None if fault == HONEST else fault)
    else:
        result = KINDS[kind].audited(seed, sizes, _tamper(kind, fault, sizes))
    guessed = guesses(result)
    return bool(result.findings), len(result.findings) > guessed, guessed > 0


def guesses(result: AuditResult) -> int:
    """How many of the findings are of the guesses."""
    accounted = float("inf") if result.accounted is None else result.accounted
    measured = (result.estimate_range[0], result.conditional_lower_bound, result.lower_bound)
    return sum(value is None or value > accounted for value in measured)


def _tamper(kind: str, fault: str, sizes: Sizes) -> Callable:
    if fault == HONEST:
        return lambda path: path
    if fault == TWICE:
        return twice_the_epsilon(sizes)
    return (FAULTS | FAULTS_OF.get(kind, {}))[fault]


if __name__ == "__main__":
    main()
