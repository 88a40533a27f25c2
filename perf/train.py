"""Whole rounds of local training: fedflair beside pfl-research and a plain PyTorch loop, in one run.

    python perf/train.py                          # some minutes; --rounds and --sizes make it shorter or longer
    python perf/train.py --sizes flair 2 --json
    python perf/train.py --check                  # is any of it slower than it would be without? status 1 says yes
    python perf/train.py --model_type vit_b_16 --sizes 2 16
    python perf/train.py --trainable head --sizes flair --cohort_size 200 --tools "fedflair fp32" pfl

Each tool runs in a process of its own, which waits while another one works; rounds alternate, in both orders. All train
the same network (``--model_type``) from the same initial weights on the same users and photographs, with GroupNorm or
(``--norm frozen``) frozen BatchNorm: fedflair from its packed store, the others from a file in pfl-research's layout
(see peers/). pfl-research is `pip install pfl`; without it the rest is compared. ``plain`` is fedflair without its
kernels: the module as torch runs it, in bf16 by autocast. An image-step is one image in one local epoch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.limit import GFLOP_PER_IMAGE_STEP, product_limits
from peers.network import write_weights
from peers.task import Task, contestant, device, device_name
from peers.users import NUM_LABELS, flair_sizes, write_users

TOOLS = {
    "fedflair fp32": "own", "fedflair bf16": "own", "pfl": "pfl_flair", "plain loop": "plain_loop",
    "plain fp32": "own", "plain bf16": "own",
}  # fmt: skip
COMPARED = ("fedflair fp32", "fedflair bf16", "pfl", "plain loop")
# ``--check``: pairs of which the first must not be slower than the second, at every number of images.
CHECKED = (
    ("fedflair bf16", "fedflair fp32"), ("fedflair fp32", "plain fp32"), ("fedflair bf16", "plain fp32"),
    ("fedflair bf16", "plain bf16"),
)  # fmt: skip
CHECKED_SIZES = ("1", "2", "4", "16", "64")
# By how much a median of rounds may be longer by chance.
NOISE = 0.05


@dataclass
class Measured:
    """ms: milliseconds per image-step, one a round. phases: share of the workers' time, of the last round."""

    ms: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", help="images per user; flair 1 2 4 16 64, or the numbers with --check")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cohort_size", type=int, default=20, help="users of FLAIR's sizes")
    parser.add_argument("--cohort_images", type=int, default=64, help="of users of one size; at least four users")
    parser.add_argument("--seed", type=int, default=1, help="which users of FLAIR's sizes")
    parser.add_argument("--norm", choices=["group", "frozen"], default="group")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda")
    parser.add_argument("--model_type", default="resnet18", help="any of torchvision's classification models")
    parser.add_argument("--trainable", choices=["all", "head"], default="all", help="head: fedflair on frozen features")
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=None)
    parser.add_argument("--check", action="store_true", help="fail where kernels or bf16 make anything slower")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    pairs = dict.fromkeys(tool for pair in CHECKED for tool in pair)
    wanted = arguments.tools or (list(pairs) if arguments.check else COMPARED)
    tools = [tool for tool in wanted if tool != "pfl" or importlib.util.find_spec("pfl") is not None]
    sizes = arguments.sizes or (CHECKED_SIZES if arguments.check else ("flair", *CHECKED_SIZES))
    cases = {size: _sizes(size, arguments) for size in sizes}
    # They are for ResNet-18's arithmetic.
    own_arithmetic = (arguments.model_type, arguments.trainable) == ("resnet18", "all")
    limits = product_limits(arguments.device) if own_arithmetic else {}
    with tempfile.TemporaryDirectory() as folder:
        store, pfl_path = write_users(Path(folder), [count for case in cases.values() for count in case])
        task = Task(store.path, pfl_path, NUM_LABELS, sum(map(len, cases.values())), device=arguments.device)
        task = replace(task, model_type=arguments.model_type, trainable=arguments.trainable)
        if arguments.norm == "frozen":
            weights = write_weights(Path(folder), task.model_type, NUM_LABELS, task.image_size)
            task = replace(task, weights_path=weights)
        results = compare(task, iter(store.partitions["train"].user_ids), cases, tools, arguments.rounds)
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
        print(f"{arguments.model_type} on {device_name(arguments.device)}")
        report(cases, results, limits)
    slower = slower_than_allowed(results) if arguments.check else []
    for line in slower:
        print(f"train.py: {line}", file=sys.stderr)
    if slower:
        raise SystemExit(1)


def slower_than_allowed(results: dict[str, dict[str, Measured]]) -> list[str]:
    """A line for each comparison of ``CHECKED`` that fails; only tools that ran are compared."""
    lines = []
    for case, tools in results.items():
        medians = {tool: statistics.median(measured.ms) for tool, measured in tools.items()}
        for tool, other in CHECKED:
            if tool in medians and other in medians and medians[tool] > (1 + NOISE) * medians[other]:
                lines.append(
                    f"images a user {case}: {tool} takes {medians[tool]:.1f} ms an image-step, "
                    f"{other} {medians[other]:.1f}: slower by more than {NOISE:.0%}"
                )
    return lines


def _sizes(size: str, arguments: argparse.Namespace) -> list[int]:
    if size == "flair":
        return flair_sizes(arguments.cohort_size, arguments.seed, 512)
    return [int(size)] * max(4, arguments.cohort_images // int(size))


def compare(
    task: Task, users: Iterator[str], cases: dict[str, list[int]], tools: list[str], num_rounds: int
) -> dict[str, dict[str, Measured]]:
    """Results by case and tool; every tool runs a small round first. users: of the store, in the cases' order."""
    results = {case: {tool: Measured() for tool in tools} for case in cases}
    with ExitStack() as stack:
        running = [stack.enter_context(contestant(tool, TOOLS[tool], _task_of(tool, task))) for tool in tools]
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


def _task_of(tool: str, task: Task) -> Task:
    if TOOLS[tool] != "own":
        return task
    return replace(task, precision=tool[-4:], kernels="0" if tool.startswith("plain") else None)


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
            line = f"  {tool:<14}{median:7.4g} ms an image-step ({min(measured.ms):.4g} to {max(measured.ms):.4g})"
            line += f", {len(cases[case]) / (2 * median * sum(cases[case])) * 1e3:,.4g} users a second"
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
