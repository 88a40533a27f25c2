"""What each plot of a dataset shows, in words: the titles of the page's figures."""

from __future__ import annotations

import numpy as np

from fedflair.data.describe.statistics import Distribution, Statistics, co_occurrence, most_frequent
from fedflair.data.store.packed import PartitionColumns


def findings(everything: PartitionColumns, statistics: Statistics) -> dict[str, str]:
    """A title by the name of the plot (``plots.PLOTS``); the store has an image. statistics: of ``everything``."""
    return {
        "images_per_user": _images_per_user(everything),
        "label_frequencies": _label_frequencies(statistics),
        "labels_per_user": _labels_per_user(statistics),
        "co_occurrence": _co_occurrence(everything, statistics),
        "divergence": _divergence(statistics.coarse.divergence, statistics.coarse.divergence_if_iid),
    }


def _images_per_user(everything: PartitionColumns) -> str:
    sizes = np.sort(np.diff(everything.user_offsets))[::-1]
    tenth = max(1, round(len(sizes) / 10))
    who = f"the {tenth:,} users with most images have" if tenth > 1 else "the user with most images has"
    return f"Images per user: {who} {sizes[:tenth].sum() / max(1, sizes.sum()):.0%} of them"


def _labels_per_user(statistics: Statistics) -> str:
    fine = f" and {statistics.fine.per_user.median:g} fine ones" if statistics.fine.names else " ones"
    return f"Labels per user: half of the users have at most {statistics.coarse.per_user.median:g} coarse{fine}"


def _label_frequencies(statistics: Statistics) -> str:
    order = most_frequent(statistics.coarse, len(statistics.coarse.names)).tolist()
    if not order:
        return "Label frequencies: no image has a coarse label"
    told = [
        f"{statistics.coarse.names[label]} is on {100 * statistics.coarse.images[label] / statistics.num_images:.3g}%"
        for label in dict.fromkeys((order[0], order[-1]))
    ]
    return f"Label frequencies: {', '.join(told)} of the images"


def _co_occurrence(everything: PartitionColumns, statistics: Statistics) -> str:
    shown = most_frequent(statistics.coarse, len(statistics.coarse.names))
    if len(shown) < 2:
        return "Labels that occur together: none"
    counts = co_occurrence(everything.label_offsets, everything.label_indices, shown)
    shares = counts / np.maximum(np.diag(counts), 1)[:, None]
    np.fill_diagonal(shares, -1)
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    names = [statistics.coarse.names[int(shown[position])] for position in (row, column)]
    return f"Labels that occur together: of the images with {names[0]}, {shares[row, column]:.0%} have {names[1]} too"


def _divergence(natural: Distribution, dealt: Distribution) -> str:
    return (
        f"How far users are from the population: half are {natural.median:.2f} bit or more from it, "
        f"{dealt.median:.2f} were the images dealt at random"
    )
