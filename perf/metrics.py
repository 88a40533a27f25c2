"""Metrics of FLAIR's val partition with fine labels, 39,239 x 1,628 scores: time and peak memory against scikit-learn.

    python perf/metrics.py                    # a fifth of the images for both, then all of them for fedflair alone
    python perf/metrics.py --num_images 39239 --with_peer    # all of them for both: minutes, gigabytes

Both get the same scores (float32, rounded so that many are tied) and must agree to 1e-6. Each runs in a process of its
own; memory is the peak of that process less what it held before the scores were made, so the scores are in it (256 MB
at full size). The targets are sparse for fedflair, dense for scikit-learn, which takes them no other way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fedflair.metrics.multi_label import MultiLabelMetrics, Targets, multi_label_metrics

NUM_IMAGES, NUM_LABELS, LABELS_PER_IMAGE = 39_239, 1_628, 4.615
LIMIT = 1e9


def scores(num_images: int) -> tuple[np.ndarray, Targets]:
    """Random logits with many ties, and labels of which some are frequent and many rare."""
    generator = np.random.default_rng(0)
    frequency = 1 / np.arange(1, NUM_LABELS + 1)
    chance = np.minimum(frequency * LABELS_PER_IMAGE / frequency.sum(), 0.5)
    logits = np.empty((num_images, NUM_LABELS), dtype=np.float32)
    counts, indices = [], []
    for row in logits:
        generator.standard_normal(out=row, dtype=np.float32)
        present = np.flatnonzero(generator.random(NUM_LABELS) < chance)
        row[present] += 2
        np.round(row, 3, out=row)
        counts.append(len(present))
        indices.append(present)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return logits, Targets(offsets, np.concatenate(indices), NUM_LABELS)


def fedflair(logits: np.ndarray, targets: Targets) -> dict[str, float]:
    metrics: MultiLabelMetrics = multi_label_metrics(logits, targets)
    return metrics.values()


def scikit_learn(logits: np.ndarray, targets: Targets) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

    hot = np.zeros(logits.shape, dtype=np.uint8)
    hot[np.repeat(np.arange(len(hot)), np.diff(targets.offsets)), targets.indices] = 1
    scored = hot.any(axis=0)
    predicted = (logits > 0).view(np.uint8)
    result = {
        "macro_ap": np.mean([average_precision_score(hot[:, k], logits[:, k]) for k in np.flatnonzero(scored)]),
        "micro_ap": average_precision_score(hot.ravel(), logits.ravel()),
    }
    for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        result[f"micro_{name}"] = function(hot, predicted, average="micro", zero_division=0)
        result[f"macro_{name}"] = function(hot[:, scored], predicted[:, scored], average="macro", zero_division=0)
    return result


TOOLS = {"fedflair": fedflair, "scikit-learn": scikit_learn}


def run_one(tool: str, num_images: int) -> None:
    TOOLS[tool](*scores(10))
    before = memory("VmRSS")
    logits, targets = scores(num_images)
    started = time.perf_counter()
    values = TOOLS[tool](logits, targets)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": memory("VmHWM") - before, "values": values}))


def memory(name: str) -> int:
    """Bytes by a field of the kernel's account of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def measured(tool: str, num_images: int) -> dict:
    command = [sys.executable, __file__, "--one", tool, "--num_images", str(num_images)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{tool:<13}{num_images:>7,} images  {result['seconds']:8.2f} s  {result['peak'] / 1e6:8,.0f} MB  "
        f"macro AP {result['values']['macro_ap']:.6f}  micro AP {result['values']['micro_ap']:.6f}"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=NUM_IMAGES // 5)
    parser.add_argument("--with_peer", action="store_true", help="do not run fedflair at full size alone")
    parser.add_argument("--one", choices=list(TOOLS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.num_images)
        return
    ours, theirs = (measured(tool, arguments.num_images) for tool in TOOLS)
    gap = max(abs(ours["values"][name] - value) for name, value in theirs["values"].items())
    print(f"largest difference  {gap:.1e} (limit 1e-6): {'ok' if gap <= 1e-6 else 'WRONG'}")
    print(f"time ratio          {theirs['seconds'] / ours['seconds']:.1f}")
    print(f"memory ratio        {theirs['peak'] / ours['peak']:.1f}")
    full = ours if arguments.with_peer else measured("fedflair", NUM_IMAGES)
    verdict = "ok" if full["peak"] < LIMIT else "TOO MUCH"
    print(f"peak memory         {full['peak'] / 1e6:,.0f} MB (limit {LIMIT / 1e6:,.0f}): {verdict}")


if __name__ == "__main__":
    main()
