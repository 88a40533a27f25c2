"""Whole rounds of local training: fedflair beside pfl-research and a plain PyTorch loop, in one run.

    python perf/train.py                          # some minutes; --rounds and --sizes make it shorter or longer
    python perf/train.py --sizes flair 2 --json

Each tool runs in a process of its own, which waits while another one works; rounds alternate, in both orders. All train
ResNet-18 from the same initial weights on the same users and photographs, with GroupNorm or (``--norm frozen``) frozen
BatchNorm: fedflair from its packed store, the others from a file in pfl-research's layout (see peers/). pfl-research is
`pip install pfl`; without it the rest is compared. An image-step is one image in one local epoch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.limit import GFLOP_PER_IMAGE_STEP, product_limits
from peers.network import write_weights
from peers.task import Task, contestant, device, device_name
from peers.users import NUM_LABELS, flair_sizes, write_users

TOOLS = {"fedflair fp32": "own", "fedflair bf16": "own", "pfl": "pfl_flair", "plain loop": "plain_loop"}
# Images of a cohort whose users all have the same number of them; at least four users.
COHORT_IMAGES = 64


@dataclass
class Measured:
    """ms: milliseconds per image-step, one a round. phases: share of the workers' time, of the last round."""

    ms: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["flair", "1", "2", "4", "16", "64"], help="images per user")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cohort_size", type=int, default=20, help="users of FLAIR's sizes")
    parser.add_argument("--seed", type=int, default=1, help="which users of FLAIR's sizes")
    parser.add_argument("--norm", choices=["group", "frozen"], default="group")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda")
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tools = [tool for tool in arguments.tools if tool != "pfl" or importlib.util.find_spec("pfl") is not None]
    cases = {size: _sizes(size, arguments.cohort_size, arguments.seed) for size in arguments.sizes}
    limits = product_limits(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        results = compare(
            Path(folder), cases, tools, arguments.rounds, frozen=arguments.norm == "frozen", on=arguments.device
        )
    if arguments.json:
        print(
            json.dumps(
                {
                    "device": device_name(arguments.device),
                    "limits_gflops": limits,
                    "cases": cases,
                    "results": _plain(results),
                }
            )
        )
    else:
        print(device_name(arguments.device))
        report(cases, results, limits)


def _sizes(size: str, cohort_size: int, seed: int) -> list[int]:
    if size == "flair":
        return flair_sizes(cohort_size, seed, 512)
    return [int(size)] * max(4, COHORT_IMAGES // int(size))


def compare(
    folder: Path, cases: dict[str, list[int]], tools: list[str], num_rounds: int, *, frozen: bool, on: str
) -> dict[str, dict[str, Measured]]:
    """Results by case and tool; every tool runs a small round first."""
    sizes = [size for case in cases.values() for size in case]
    store, pfl_path = write_users(folder, sizes)
    task = Task(store.path, pfl_path, NUM_LABELS, len(sizes), device=on)
    if frozen:
        task = replace(task, weights_path=write_weights(folder, task.model_type, NUM_LABELS, task.image_size))
    results = {case: {tool: Measured() for tool in tools} for case in cases}
    with ExitStack() as stack:
        running = [
            stack.enter_context(contestant(tool, TOOLS[tool], replace(task, precision=tool[-4:])))
            if TOOLS[tool] == "own"
            else stack.enter_context(contestant(tool, TOOLS[tool], task))
            for tool in tools
        ]
        users = iter(store.partitions["train"].user_ids)
        for case, counts in cases.items():
            cohort = [next(users) for _ in counts]
            for process in running:
                process.round(cohort[-2:])
            for round_ in range(num_rounds):
                for process in running if round_ % 2 == 0 else reversed(running):
                    answer = process.round(cohort)
                    measured = results[case][process.name]
                    measured.ms.append(answer["seconds"] / (task.num_epochs * sum(counts)) * 1e3)
                    measured.phases = _shares(answer)
    return results


def _shares(answer: dict[str, Any]) -> dict[str, float]:
    """Share of each kind of work in the time that the cores had; ``rest`` is idle cores and all else."""
    if "phases" not in answer:
        return {}
    available = answer["seconds"] * len(os.sched_getaffinity(0))
    shares = Counter({phase: seconds / available for phase, seconds in answer["phases"].items()})
    shares["rest"] = 1 - sum(shares.values())
    return dict(shares)


def report(
    cases: dict[str, list[int]], results: dict[str, dict[str, Measured]], limits: dict[str, dict[str, float]]
) -> None:
    bounds = {name: GFLOP_PER_IMAGE_STEP / max(rates.values()) * 1e3 for name, rates in limits.items()}
    for name, rates in limits.items():
        for kind, rate in rates.items():
            bound = GFLOP_PER_IMAGE_STEP / rate * 1e3
            print(f"{name} {kind:<12}{rate:6.0f} GFLOP/s: {bound:5.1f} ms an image-step")
    for case, tools in results.items():
        users = "sizes, images a user: " + " ".join(map(str, sorted(cases[case])))
        print(f"\n{case} {users if case == 'flair' else 'images a user'}")
        reference = statistics.median(tools["pfl"].ms) if "pfl" in tools else None
        for tool, measured in tools.items():
            median = statistics.median(measured.ms)
            line = f"  {tool:<14}{median:7.1f} ms an image-step ({min(measured.ms):.1f} to {max(measured.ms):.1f})"
            if reference is not None:
                line += f", {reference / median:.2f} times pfl's speed"
            if tool[-4:] in bounds:
                line += f", {median / bounds[tool[-4:]]:.2f} times the faster limit"
            print(line)
            if measured.phases:
                print("      " + ", ".join(f"{phase} {share:.0%}" for phase, share in measured.phases.items()))


def _plain(results: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    return {
        case: {
            tool: {"ms": m.ms, "median_ms": statistics.median(m.ms), "phases": m.phases} for tool, m in tools.items()
        }
        for case, tools in results.items()
    }


if __name__ == "__main__":
    main()
