"""Images scored a second: fedflair's evaluation beside pfl-research's central evaluation, in one run.

    python perf/evaluate.py
    python perf/evaluate.py --num_images 512 --rounds 3 --json

ResNet-18 with GroupNorm on 256 x 256 JPEGs, resized to 224. pfl as in its FLAIR benchmark: all images decoded and in
memory beforehand, batches of 512 through its ``PyTorchModel.evaluate``, float32; fedflair decodes as it goes.
fedflair's metrics of all images together are included, pfl's are the loss alone, which is for pfl. Each tool runs in a
process of its own; rounds alternate, in both orders. pfl-research is `pip install pfl`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from peers.task import Task, contestant, device, device_name
from peers.users import NUM_LABELS, write_users

TOOLS = {"fedflair fp32": "own_evaluation", "fedflair bf16": "own_evaluation", "pfl": "pfl_evaluation"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tools = [tool for tool in TOOLS if tool != "pfl" or importlib.util.find_spec("pfl") is not None]
    speeds: dict[str, list[float]] = {tool: [] for tool in tools}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store, pfl_path = write_users(Path(folder), [1], [arguments.num_images])
        task = Task(store.path, pfl_path, NUM_LABELS, 1, device=arguments.device)
        running = [
            stack.enter_context(
                contestant(tool, TOOLS[tool], replace(task, precision="bf16" if "bf16" in tool else "fp32"))
            )
            for tool in tools
        ]
        for process in running:
            process.round(["warm up"])
        for round_ in range(arguments.rounds):
            for process in running if round_ % 2 == 0 else reversed(running):
                answer = process.round(["score"])
                speeds[process.name].append(arguments.num_images / answer["seconds"])
                memory[process.name] = answer["peak_mb"]
    medians = {tool: statistics.median(values) for tool, values in speeds.items()}
    if arguments.json:
        print(
            json.dumps(
                {
                    "device": device_name(arguments.device),
                    "images_per_second": speeds,
                    "median": medians,
                    "peak_mb": memory,
                }
            )
        )
        return
    print(device_name(arguments.device))
    for tool, median in medians.items():
        ratio = f", {median / medians['pfl']:.2f} times pfl's" if "pfl" in medians else ""
        print(f"{tool:<14}{median:8.1f} images a second{ratio}, peak memory {memory[tool]:,.0f} MB")


if __name__ == "__main__":
    main()
