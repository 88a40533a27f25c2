"""Rounds on one GPU: fedflair beside pfl-research and plain loops, and what each of fedflair's means gives.

    python perf/gpu.py                                   # five minutes on an H100
    python perf/gpu.py --cases flair 2 --cohort_size 50 --rounds 2
    python perf/gpu.py --device cpu --cases 1 --cohort_size 4 --quick    # does it run at all?

All train ResNet-18 with GroupNorm at 224 px from the same initial weights on the same users (FLAIR's sizes, or so many
images a user), as ``perf/train.py`` does. Each tool runs in a process of its own, all of them alive all the time; a
round of one waits for that of another, in both orders. ``pfl xN`` is N processes that share the cohort and run at the
same time on the GPU, without adding up what they found, which favours them. ``stacked`` is no tool but a local step of
K clients under ``torch.func.vmap``, beside the same step of one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.limit import GFLOP_PER_IMAGE_STEP, product_limits
from peers.stacked import stacked_steps
from peers.task import Contestant, Task, contestant, device, device_name
from peers.users import NUM_LABELS, flair_sizes, write_users

# Of each tool: what of the task is its own, its module, and how many processes share a round.
TOOLS: dict[str, tuple[str, dict[str, Any], int]] = {
    "fedflair bf16": ("own", {"precision": "bf16"}, 1),
    "fedflair fp32 (TF32)": ("own", {"precision": "fp32"}, 1),
    "pfl": ("pfl_flair", {}, 1),
    "plain loop": ("plain_loop", {}, 1),
    "plain loop, compiled": ("plain_loop", {"compiled": True}, 1),
}
# Tried on FLAIR's sizes only.
MEANS: dict[str, tuple[str, dict[str, Any], int]] = {
    "pfl x2": ("pfl_flair", {}, 2),
    "pfl x4": ("pfl_flair", {}, 4),
    "bf16, no graphs": ("own", {"precision": "bf16", "cuda_graphs": False}, 1),
    **{f"bf16, {n} in flight": ("own", {"precision": "bf16", "in_flight": n}, 1) for n in (1, 2, 8, 16)},
    "bf16 x2": ("own", {"precision": "bf16"}, 2),
    "bf16 x4": ("own", {"precision": "bf16"}, 4),
}
COHORT_IMAGES = 512


@dataclass(frozen=True)
class Runner:
    """A tool: the processes that share its rounds."""

    name: str
    processes: list[Contestant]

    def round(self, users: list[str]) -> tuple[float, float | None]:
        """Trains on these users: (seconds, peak memory of the GPU in MB where that is known)."""
        shares = [users[k :: len(self.processes)] for k in range(len(self.processes))]
        started = time.perf_counter()
        with ThreadPoolExecutor(len(self.processes)) as pool:
            answers = list(pool.map(lambda pair: pair[0].round(pair[1]), zip(self.processes, shares)))
        peaks = [answer["peak_gpu_mb"] for answer in answers if "peak_gpu_mb" in answer]
        return time.perf_counter() - started, sum(peaks) if peaks else None


@dataclass
class Measured:
    """seconds: of each round. first: of the one before them. peak_mb: of GPU memory."""

    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    peak_mb: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device, default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--cases", nargs="+", default=["flair", "1", "2", "4", "16", "64"], help="images per user")
    parser.add_argument("--cohort_size", type=int, default=200, help="users of FLAIR's sizes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fedflair and the plain loop alone, few users")
    parser.add_argument("--json", type=Path, help="also write all numbers there")
    arguments = parser.parse_args()
    print(device_name(arguments.device), flush=True)
    found: dict[str, Any] = {"device": device_name(arguments.device), "limits_gflops": product_limits(arguments.device)}
    found["cases"] = compare(arguments)
    if not arguments.quick:
        found["stacked"] = stacked_steps(arguments.device)
        for line in found["stacked"]:
            print(line["words"])
    report(found["limits_gflops"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs every case and prints its table as soon as it is measured."""
    cases = {
        case: flair_sizes(arguments.cohort_size, 1, 512)
        if case == "flair"
        else [int(case)] * max(4, (8 if arguments.quick else COHORT_IMAGES) // int(case))
        for case in arguments.cases
    }
    sizes = [size for case in cases.values() for size in case]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        store, pfl_path = write_users(Path(folder), sizes)
        task = Task(store.path, pfl_path, NUM_LABELS, len(sizes), device=arguments.device)
        users = iter(store.partitions["train"].user_ids)
        with ExitStack() as stack:
            tools = [stack.enter_context(runner(name, task)) for name in _there(TOOLS, arguments.quick)]
            for case, counts in cases.items():
                cohort = [next(users) for _ in counts]
                with ExitStack() as short:
                    others = _there(MEANS, arguments.quick) if case == "flair" else []
                    runners = [*tools, *(short.enter_context(runner(name, task)) for name in others)]
                    measured = rounds_of(runners, cohort, arguments.rounds)
                found[case] = table(case, counts, measured, task.num_epochs)
    return found


def _there(tools: dict[str, Any], quick: bool) -> list[str]:
    """Those of the tools that are installed."""
    known = importlib.util.find_spec("pfl") is not None
    return [name for name in tools if ("pfl" not in name or known) and (not quick or name in list(TOOLS)[::3])]


@contextmanager
def runner(name: str, task: Task) -> Iterator[Runner]:
    """The processes of a tool, at work until the block ends."""
    module, own, count = {**TOOLS, **MEANS}[name]
    with ExitStack() as stack:
        yield Runner(name, [stack.enter_context(contestant(name, module, replace(task, **own))) for _ in range(count)])


def rounds_of(runners: list[Runner], cohort: list[str], num_rounds: int) -> dict[str, Measured]:
    """A round each to settle in, whose graphs are captured and kernels compiled, then ``num_rounds`` in both orders."""
    measured = {one.name: Measured() for one in runners}
    for one in runners:
        measured[one.name].first, _ = one.round(cohort)
    for round_ in range(num_rounds):
        for one in runners if round_ % 2 == 0 else reversed(runners):
            seconds, peak = one.round(cohort)
            measured[one.name].seconds.append(seconds)
            measured[one.name].peak_mb = peak
    return measured


def table(case: str, counts: list[int], measured: dict[str, Measured], num_epochs: int) -> dict[str, Any]:
    """Prints what a case took, and returns it."""
    steps = num_epochs * sum(counts)
    pfl = statistics.median(measured["pfl"].seconds) if "pfl" in measured else None
    print(f"\n{case} images a user: {len(counts)} users, {steps:,} image-steps")
    print(f"  {'':<22}{'s a round':>10}{'ms/step':>9}{'steps/s':>9}{'x pfl':>7}{'first s':>9}{'GPU MB':>8}")
    found = {}
    for name, one in measured.items():
        median = statistics.median(one.seconds)
        ratio = "" if pfl is None else f"{pfl / median:.1f}"
        memory = "" if one.peak_mb is None else f"{one.peak_mb:,.0f}"
        print(
            f"  {name:<22}{median:>10.3f}{median / steps * 1e3:>9.3f}{steps / median:>9,.0f}{ratio:>7}"
            f"{one.first:>9.1f}{memory:>8}",
            flush=True,
        )
        found[name] = {"seconds": one.seconds, "first": one.first, "steps": steps, "peak_gpu_mb": one.peak_mb}
    return found


def report(limits: dict[str, dict[str, float]]) -> None:
    """Prints what the processor's arithmetic allows."""
    for precision, rates in limits.items():
        for kind, rate in rates.items():
            bound = GFLOP_PER_IMAGE_STEP / rate * 1e3
            print(f"{precision} {kind:<12}{rate:9,.0f} GFLOP/s: {bound:7.4f} ms an image-step")


if __name__ == "__main__":
    main()
