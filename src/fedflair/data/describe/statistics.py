"""Numbers that describe a dataset, from the columns of a packed store: no image is read.

Everything is a vectorised pass over the index columns, so FLAIR's 429,078 images take about a second.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data.store.packed import IndexArray, IntArray, PartitionColumns, Store
from fedflair.sampling import stream

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """Summary of one number per user or per image; all nan where there is none.

    std is that of the population (divided by n); quartiles interpolate linearly between neighbours.
    """

    mean: float
    std: float
    min: float
    q25: float
    median: float
    q75: float
    max: float


@dataclass(frozen=True)
class LabelStatistics:
    """One kind of label (coarse or fine) over a set of users.

    names: label names in index order, L of them.
    images: int64 [L], images that carry each label.
    users: int64 [L], users with at least one image that carries each label.
    per_image: labels of an image. per_user: distinct labels of a user.
    divergence: see :func:`divergence_from_population`.
    divergence_if_iid: the same with the images dealt to the users at random, each user keeping his number of images.
    """

    names: tuple[str, ...]
    images: IntArray
    users: IntArray
    per_image: Distribution
    per_user: Distribution
    divergence: Distribution
    divergence_if_iid: Distribution


@dataclass(frozen=True)
class Statistics:
    """One partition, or several together.

    image_bytes: size of the encoded images.
    """

    num_users: int
    num_images: int
    image_bytes: int
    images_per_user: Distribution
    coarse: LabelStatistics
    fine: LabelStatistics


def summarize(values: npt.NDArray[Any]) -> Distribution:
    """Mean, deviation and quartiles of one number per user or image, any numeric dtype [n]."""
    if len(values) == 0:
        return Distribution(*[float("nan")] * 7)
    q25, median, q75 = np.percentile(values, [25, 50, 75])
    return Distribution(
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        q25=float(q25),
        median=float(median),
        q75=float(q75),
        max=float(values.max()),
    )


def statistics(columns: PartitionColumns, coarse: tuple[str, ...], fine: tuple[str, ...]) -> Statistics:
    """Every statistic of one partition, or of several joined by :func:`join`; label names in index order."""
    return Statistics(
        num_users=columns.num_users,
        num_images=columns.num_images,
        image_bytes=int(columns.image_offsets[-1]),
        images_per_user=summarize(np.diff(columns.user_offsets)),
        coarse=label_statistics(columns, coarse, fine=False),
        fine=label_statistics(columns, fine, fine=True),
    )


def store_statistics(store: Store) -> dict[str, Statistics]:
    """Statistics of each partition in the store's order and, last, of ``all`` of them together."""
    coarse, fine = store.label_names(fine=False), store.label_names(fine=True)
    columns = {name: partition.columns for name, partition in store.partitions.items()}
    by_partition = {name: statistics(partition, coarse, fine) for name, partition in columns.items()}
    return {**by_partition, "all": statistics(join(list(columns.values())), coarse, fine)}


def join(parts: list[PartitionColumns]) -> PartitionColumns:
    """Several partitions as one, users in the order given; offsets are shifted to match."""
    return PartitionColumns(
        user_ids=[user_id for part in parts for user_id in part.user_ids],
        user_offsets=_join_offsets([part.user_offsets for part in parts]),
        image_ids=np.concatenate([part.image_ids for part in parts] or [np.empty(0, np.int64)]),
        image_offsets=_join_offsets([part.image_offsets for part in parts]),
        label_offsets=_join_offsets([part.label_offsets for part in parts]),
        label_indices=np.concatenate([part.label_indices for part in parts] or [np.empty(0, np.uint16)]),
        fine_label_offsets=_join_offsets([part.fine_label_offsets for part in parts]),
        fine_label_indices=np.concatenate([part.fine_label_indices for part in parts] or [np.empty(0, np.uint16)]),
    )


def _join_offsets(parts: list[IntArray]) -> IntArray:
    """Offsets of the concatenation of what the given offsets delimit."""
    lengths = [np.diff(part) for part in parts]
    return np.concatenate([[0], np.cumsum(np.concatenate([*lengths, np.empty(0, np.int64)]))]).astype(np.int64)


def label_statistics(columns: PartitionColumns, names: tuple[str, ...], *, fine: bool) -> LabelStatistics:
    """What :class:`LabelStatistics` says of the coarse or fine labels, whose names are given in index order."""
    num_users = columns.num_users
    users, labels, counts = counts_by_user(columns, len(names), fine=fine)
    dealt = counts_by_user(columns, len(names), fine=fine, dealt_at_random=True)
    offsets = columns.fine_label_offsets if fine else columns.label_offsets
    indices = columns.fine_label_indices if fine else columns.label_indices
    return LabelStatistics(
        names=names,
        images=np.bincount(indices, minlength=len(names)).astype(np.int64),
        users=np.bincount(labels, minlength=len(names)).astype(np.int64),
        per_image=summarize(np.diff(offsets)),
        per_user=summarize(np.bincount(users, minlength=num_users)),
        divergence=summarize(divergence_from_population(users, labels, counts, num_users, len(names))),
        divergence_if_iid=summarize(divergence_from_population(*dealt, num_users, len(names))),
    )


def counts_by_user(
    columns: PartitionColumns, num_labels: int, *, fine: bool, dealt_at_random: bool = False
) -> tuple[IntArray, IntArray, IntArray]:
    """The users x labels table of image counts, without its zeros.

    dealt_at_random: as if the images were shuffled among the users, each keeping his number of images; always the
    same shuffle.
    Returns (user, label, count), each int64 [number of pairs that occur], by user, then by label.
    """
    offsets = columns.fine_label_offsets if fine else columns.label_offsets
    indices = columns.fine_label_indices if fine else columns.label_indices
    owners = np.repeat(np.arange(columns.num_users), np.diff(columns.user_offsets))
    if dealt_at_random:
        owners = stream(0, "divergence if iid").permutation(owners)
    pairs, counts = np.unique(np.repeat(owners, np.diff(offsets)) * num_labels + indices, return_counts=True)
    users, labels = np.divmod(pairs, max(num_labels, 1))
    return users, labels, counts.astype(np.int64)


def divergence_from_population(
    users: IntArray, labels: IntArray, counts: IntArray, num_users: int, num_labels: int
) -> FloatArray:
    """Jensen-Shannon divergence of each user's label frequencies from those of all users: float64 [users], in bits.

    0: the user's images carry the labels in the population's proportions; 1: no label in common. Users with few
    images diverge even when images are dealt at random, so compare with ``divergence_if_iid``. The arguments are
    what :func:`counts_by_user` returns. Lin, "Divergence measures based on the Shannon entropy", 1991.
    """
    totals = np.bincount(users, weights=counts, minlength=num_users)
    population = np.bincount(labels, weights=counts, minlength=num_labels)
    own = counts / totals[users]
    others = (population / max(population.sum(), 1.0))[labels]
    middle = (own + others) / 2
    present = own * np.log2(own / middle) + others * np.log2(others / middle)
    # A label the user lacks adds its population frequency times log2(2) = 1.
    absent = 1.0 - np.bincount(users, weights=others, minlength=num_users)
    divergence = (np.bincount(users, weights=present, minlength=num_users) + absent) / 2
    return np.clip(divergence[totals > 0], 0.0, 1.0)


def co_occurrence(offsets: IntArray, indices: IndexArray, chosen: IntArray) -> IntArray:
    """How many images carry each pair of the chosen labels: int64 [len(chosen), len(chosen)], symmetric.

    offsets int64 [n + 1] and indices uint16 are the CSR columns of n images; the diagonal counts images per label.
    """
    column = np.full(np.iinfo(np.uint16).max + 1, -1, dtype=np.int64)
    column[chosen] = np.arange(len(chosen))
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = np.zeros((len(chosen), len(chosen)), dtype=np.int64)
    step = 100_000  # images at a time, so that the dense table stays a few megabytes
    bounds = np.searchsorted(rows, np.arange(0, len(offsets) - 1 + step, step))
    for chunk, (start, stop) in enumerate(itertools.pairwise(bounds)):
        columns = column[indices[start:stop]]
        kept = columns >= 0
        hot = np.zeros((step, len(chosen)), dtype=np.float32)
        hot[rows[start:stop][kept] - chunk * step, columns[kept]] = 1
        counts += (hot.T @ hot).astype(np.int64)
    return counts


def most_frequent(labels: LabelStatistics, number: int) -> IntArray:
    """Indices of the labels on most images, at most ``number``, most first, ties in index order; none with no image."""
    order = np.argsort(-labels.images, kind="stable")[:number]
    return order[labels.images[order] > 0]
