"""The synthetic twin at full scale against FLAIR's published statistics, without drawing it; and how fast it draws.

    python perf/synthesize.py                     # exits with status 1 where a figure is off
    python perf/synthesize.py --seed 7 --images 4000

Users, images, labels per image, coarse totals and the published head must be exact; means, deviations and quartiles of
everything else within 5 %. The time that drawing takes on this machine is extrapolated from a sample.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data import published as flair
from fedflair.data.published import Distribution
from fedflair.data.synthetic.labels import FINE_NAMES, PartitionLabels, make_labels
from fedflair.data.synthetic.synthesize import synthetic_source
from fedflair.data.synthetic.vocabulary import COARSE_LABELS

TOLERANCE = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=4000, help="images to draw for the rate; 0 for none")
    arguments = parser.parse_args()
    started = time.perf_counter()
    labels = make_labels(flair.NUM_USERS, arguments.seed)
    print(f"labels of {flair.NUM_IMAGES:,} images: {time.perf_counter() - started:.1f} s")
    misses = check(labels)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    del labels
    if arguments.images:
        show_rate(arguments.seed, arguments.images)
    print(f"{misses} figures are off" if misses else "every figure is met")
    return 1 if misses else 0


def check(labels: dict[str, PartitionLabels]) -> int:
    """Prints every figure beside the published one; the number of those that are off."""
    parts = list(labels.values())
    misses = 0
    for name, size in flair.PARTITION_SIZES.items():
        misses += line(f"{name} users", len(labels[name].user_ids), size.users, 0)
        misses += line(f"{name} images", labels[name].num_images, size.images, 0)
    for label, total, count in zip(COARSE_LABELS, sum(part.coarse.sum(axis=0) for part in parts), range(17)):
        misses += line(f"coarse {label}", int(total), flair.COARSE_COUNTS[COARSE_LABELS[count]], 0)
    fine = sum(np.bincount(part.fine_indices, minlength=len(FINE_NAMES)) for part in parts)
    head = np.argsort(-fine)[: len(flair.FINE_HEAD_COUNTS)]
    for k, (label, count) in zip(head, flair.FINE_HEAD_COUNTS.items()):
        misses += line(f"fine {label}", int(fine[k]) if FINE_NAMES[k] == label else -1, count, 0)
    misses += line("fine labels in use", int((fine > 0).sum()), flair.NUM_FINE_LABELS, 0)
    sizes = [np.diff(part.user_offsets) for part in parts]
    misses += distribution("images per user", sizes, flair.IMAGES_PER_USER, exact=True)
    coarse = [part.coarse.sum(axis=1) for part in parts]
    misses += distribution("coarse per image", coarse, flair.COARSE_LABELS_PER_IMAGE, exact=True)
    fine_counts = [np.diff(part.fine_offsets) for part in parts]
    misses += distribution("fine per image", fine_counts, flair.FINE_LABELS_PER_IMAGE, exact=True)
    misses += distribution("coarse per user", map(distinct_coarse, parts), flair.COARSE_LABELS_PER_USER, exact=False)
    misses += distribution("fine per user", map(distinct_fine, parts), flair.FINE_LABELS_PER_USER, exact=False)
    return misses


def distinct_coarse(part: PartitionLabels) -> npt.NDArray[np.int64]:
    return np.asarray(np.logical_or.reduceat(part.coarse, part.user_offsets[:-1], axis=0).sum(axis=1))


def distinct_fine(part: PartitionLabels) -> npt.NDArray[np.int64]:
    labels_of_user = np.diff(part.fine_offsets[part.user_offsets])
    user = np.repeat(np.arange(len(part.user_ids)), labels_of_user)
    pairs = np.unique(user * len(FINE_NAMES) + part.fine_indices)
    return np.bincount(pairs // len(FINE_NAMES), minlength=len(part.user_ids))


def distribution(
    name: str, values: Iterable[npt.NDArray[np.integer[Any]]], published: Distribution, *, exact: bool
) -> int:
    counts = np.concatenate(list(values))
    order = TOLERANCE * (not exact)
    misses = line(f"{name}: mean", float(counts.mean()), published.mean, TOLERANCE)
    if published.std is not None:
        misses += line(f"{name}: deviation", float(counts.std()), published.std, TOLERANCE)
    misses += line(f"{name}: minimum", int(counts.min()), published.minimum, 0)
    for share, quartile in zip((25, 50, 75), published.quartiles):
        misses += line(f"{name}: {share} %", float(np.percentile(counts, share)), quartile, order)
    return misses + line(f"{name}: maximum", int(counts.max()), published.maximum, order)


def line(name: str, value: float, published: float, tolerance: float) -> int:
    off = abs(value - published) > tolerance * abs(published)
    print(f"  {name:28} {value:>12,.6g} {published:>12,.6g} {value / published - 1:>+8.2%}{'  OFF' if off else ''}")
    return int(off)


def show_rate(seed: int, images: int) -> None:
    cores = os.cpu_count() or 1
    records = synthetic_source("full", seed, num_users=max(400, images // 4), mixed=True).records()
    # The first images pay for starting the processes; what a drawing costs anew is spread over the full run.
    next(records)
    started = time.perf_counter()
    drawn = [len(record.image) for record in islice(records, images)]
    seconds = time.perf_counter() - started
    per_image = seconds / len(drawn)
    print(f"drew {len(drawn):,} images on {cores} cores in {seconds:.1f} s, {np.mean(drawn) / 1e3:.1f} KB each")
    print(f"at this rate {flair.NUM_IMAGES:,} take {per_image * flair.NUM_IMAGES / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
