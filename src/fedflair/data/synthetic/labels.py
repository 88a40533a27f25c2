"""Who has how many photographs of what: the synthetic twin's users and labels, made to FLAIR's published statistics.

Counts that FLAIR publishes are built exactly; what lies between them is drawn. Each partition is made by itself:

1. images per user and the partitions (``users.py``);
2. labels per image from a discrete distribution with the published mean and deviation;
3. which labels: an image takes the labels with the highest score, score = how common the label is + how much its user
   likes it + chance, so users differ; then single labels are exchanged until each label's total is exact.

At 51,414 users this is FLAIR; at fewer, every count is scaled and the tail of large users is cut where it would begin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from fedflair.data.published import (
    COARSE_COUNTS,
    COARSE_LABELS_PER_IMAGE,
    FINE_HEAD_COUNTS,
    FINE_LABELS_PER_IMAGE,
    NUM_USERS,
    PARTITION_SIZES,
)
from fedflair.data.store.packed import PARTITIONS
from fedflair.data.synthetic.users import apportion, identifiers, sizes_by_partition
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_LABELS
from fedflair.sampling import stream

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

FINE_NAMES: tuple[str, ...] = tuple(sorted(fine for names in FINE_LABELS.values() for fine in names))

# Spread of a user's tastes, in natural-log units of preference: (images of the user, spread), log-linear in between.
# Fitted to the published distinct labels per user; who shows little is choosier.
_COARSE_TASTE = ((1, 1.55), (800, 1.55), (4151, 0.5))
_FINE_TASTE = ((1, 12.0), (3, 8.0), (6, 5.0), (20, 2.0), (60, 0.9), (500, 0.9), (4151, 1.8))
# Mean fine-grained labels per image that carries the coarse label; fitted to the published head and mean.
_FINE_PER_COARSE = {
    "structure": 1.85,
    "equipment": 1.55,
    "material": 1.35,
    "outdoor": 1.65,
    "plant": 1.80,
    "food": 1.75,
    "animal": 1.70,
    "liquid": 1.40,
}
_FINE_PER_RARE_COARSE = 1.25
# The tail of a coarse label's fine labels falls like rank ** -this.
_TAIL_EXPONENT = 0.9


@dataclass(frozen=True)
class PartitionLabels:
    """One partition's users and labels; users in sorted order of their ids, images adjacent.

    user_offsets: int64 [users + 1].  image_ids: int64 [n].
    coarse: bool [n, 17] in the order of COARSE_LABELS.
    fine_offsets: int64 [n + 1], fine_indices: uint16, ascending within an image, into FINE_NAMES.
    """

    user_ids: list[str]
    user_offsets: IntArray
    image_ids: IntArray
    coarse: BoolArray
    fine_offsets: IntArray
    fine_indices: npt.NDArray[np.uint16]

    @property
    def num_images(self) -> int:
        return len(self.image_ids)


def make_labels(
    num_users: int, seed: int, *, min_label_share: float = 0.0, partitions: tuple[str, ...] = PARTITIONS
) -> dict[str, PartitionLabels]:
    """Users, image ids and labels of the partitions, each of which is the same with and without the others.

    num_users: 10 to 51,414.  min_label_share: no coarse label is on fewer than this share of a partition's images.
    """
    sizes = sizes_by_partition(num_users, seed)
    user_ids, image_ids = identifiers(num_users, sum(int(part.sum()) for part in sizes.values()), seed)
    vocabulary = _vocabulary(num_users)
    labelled, first_user, first_image = {}, 0, 0
    for name in PARTITIONS:
        part, count = sizes[name], int(sizes[name].sum())
        if name in partitions:
            ids = sorted(user_ids[first_user : first_user + len(part)])
            images = image_ids[first_image : first_image + count]
            labelled[name] = _partition(name, ids, images, part, vocabulary, seed, min_label_share)
        first_user, first_image = first_user + len(part), first_image + count
    return labelled


def _partition(
    name: str,
    user_ids: list[str],
    image_ids: IntArray,
    sizes: IntArray,
    vocabulary: dict[str, tuple[str, ...]],
    seed: int,
    min_label_share: float,
) -> PartitionLabels:
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    user_of_image = np.repeat(np.arange(len(sizes)), sizes)
    coarse = _coarse_labels(user_of_image, name, seed, min_label_share)
    fine_offsets, fine_indices = _fine_labels(user_of_image, coarse, vocabulary, name, seed)
    # Within a user by image id, as in a store.
    ids = image_ids[np.lexsort((image_ids, user_of_image))]
    return PartitionLabels(user_ids, offsets, ids, coarse, fine_offsets, fine_indices)


def count_distribution(n: int, total: int, std: float, highest: int) -> IntArray:
    """How many of ``n`` images have 1, 2, ... ``highest`` labels, ``total`` labels altogether: int64 [highest].

    The distribution of this mean and deviation that says nothing else (maximum entropy), rounded; where n is at least
    1,000 some image has ``highest`` labels.
    """
    values = np.arange(1, highest + 1)
    mean = total / n

    def probabilities(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        logits = parameters[0] * values + parameters[1] * values**2
        p = np.exp(logits - logits.max())
        return np.asarray(p / p.sum())

    def misfit(parameters: npt.NDArray[np.float64]) -> list[float]:
        p = probabilities(parameters)
        return [float(p @ values - mean), float(p @ (values - mean) ** 2 - std**2)]

    counts = apportion(probabilities(optimize.fsolve(misfit, (mean / std**2, -0.5 / std**2))), n)
    if counts[-1] == 0 and n >= 1000:
        counts[-1] += 1
        counts[np.argmax(counts)] -= 1
    gap = total - int(counts @ values)
    step = 1 if gap > 0 else -1
    # Rounding left a few labels over or short: some images of the commonest number get one more, or one less.
    movable = slice(0, highest - 1) if gap > 0 else slice(1, highest)
    for _ in range(abs(gap)):
        giver = movable.start + int(np.argmax(counts[movable]))
        counts[giver] -= 1
        counts[giver + step] += 1
    return counts


def _coarse_labels(user_of_image: IntArray, partition: str, seed: int, min_label_share: float) -> BoolArray:
    """Coarse labels of a partition's images: bool [n, 17]; each label's total is its share of the published one."""
    n = len(user_of_image)
    published = np.array([COARSE_COUNTS[label] for label in COARSE_LABELS])
    totals = np.maximum(partition_totals(published, partition, n), int(np.ceil(min_label_share * n)))
    histogram = count_distribution(
        n, int(totals.sum()), COARSE_LABELS_PER_IMAGE.std or 1.0, COARSE_LABELS_PER_IMAGE.maximum
    )
    rng = stream(seed, "synthetic coarse labels", client=partition)
    per_image = rng.permutation(np.repeat(np.arange(1, len(histogram) + 1), histogram))
    spread = _spread(user_of_image, _COARSE_TASTE)
    taste = rng.standard_normal((len(spread), len(COARSE_LABELS)), dtype=np.float32) * spread[:, None]
    scores = taste[user_of_image] + _gumbel(rng, (n, len(COARSE_LABELS)))
    return _choose(scores, per_image, totals, rng)


def _spread(user_of_image: IntArray, knots: tuple[tuple[int, float], ...]) -> FloatArray:
    """The spread of each user's taste, by his number of images: float32 [users]."""
    sizes, spreads = np.array(knots).T
    return np.asarray(np.interp(np.log(np.bincount(user_of_image)), np.log(sizes), spreads), dtype=np.float32)


def partition_totals(published: IntArray, partition: str, n: int) -> IntArray:
    """A partition's part of published totals; over the full dataset's partitions they sum to exactly those."""
    images = [PARTITION_SIZES[name].images for name in PARTITIONS]
    parts = np.stack([apportion(images, int(total)) for total in published])
    own = parts[:, PARTITIONS.index(partition)]
    full = PARTITION_SIZES[partition].images
    return own if n == full else np.maximum(1, np.rint(own * (n / full)).astype(np.int64))


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Gumbel noise: the k highest of score + noise are k draws without replacement in proportion to e^score."""
    noise = rng.standard_exponential(shape, dtype=np.float32)
    np.log(np.maximum(noise, np.float32(1e-30), out=noise), out=noise)
    return np.negative(noise, out=noise)


def _choose(scores: FloatArray, per_row: IntArray, totals: IntArray, rng: np.random.Generator) -> BoolArray:
    """For each row its ``per_row`` best columns, after adding to ``scores`` what makes each chosen ``totals`` times."""
    n = len(scores)
    sample = np.sort(rng.permutation(n)[:20_000])
    wanted = np.maximum(totals, 0.5) * (len(sample) / n)
    bias = np.log(wanted) - np.log(wanted).mean()
    for _ in range(12):
        got = _best(scores[sample] + bias.astype(np.float32), per_row[sample]).sum(axis=0)
        bias = bias + 0.8 * np.log(wanted / np.maximum(got, 0.3))
    # In place: at full scale the scores are the largest thing in memory.
    scores += bias.astype(np.float32)
    chosen = _best(scores, per_row)
    exchange(chosen, totals, rng)
    return chosen


def _best(scores: FloatArray, per_row: IntArray) -> BoolArray:
    """The ``per_row[i]`` highest columns of row i: bool [n, k]."""
    chosen = np.zeros(scores.shape, dtype=np.bool_)
    for count in np.unique(per_row):
        rows = np.flatnonzero(per_row == count)
        if count >= scores.shape[1]:
            chosen[rows] = True
        elif count == 1:
            chosen[rows, scores[rows].argmax(axis=1)] = True
        elif count > 1:
            columns = np.argpartition(scores[rows], -int(count), axis=1)[:, -int(count) :]
            chosen[rows[:, None], columns] = True
    return chosen


def exchange(chosen: BoolArray, totals: IntArray, rng: np.random.Generator) -> None:
    """Moves choices between columns within rows, in place, until column sums are ``totals``; row sums stay.

    A label in surplus is replaced by one in deficit on random rows that have only the first.
    """
    # Whole columns are read again and again, so they had better be contiguous.
    columns = np.asfortranarray(chosen)
    gaps = totals - columns.sum(axis=0)
    moved = True
    while moved and (gaps < 0).any():
        moved = False
        for a in np.argsort(gaps)[: np.count_nonzero(gaps < 0)].tolist():
            for b in np.argsort(-gaps).tolist():
                if gaps[a] >= 0 or gaps[b] <= 0:
                    break
                rows = np.flatnonzero(columns[:, a] & ~columns[:, b])
                count = min(-int(gaps[a]), int(gaps[b]), len(rows))
                picked = rng.permutation(rows)[:count]
                columns[picked, a], columns[picked, b] = False, True
                gaps[a] += count
                gaps[b] -= count
                moved |= count > 0
    chosen[:] = columns


def _vocabulary(num_users: int) -> dict[str, tuple[str, ...]]:
    """The fine-grained labels in use: all of them at full scale, fewer as the square root of the users below it."""
    share = (num_users / NUM_USERS) ** 0.5
    return {coarse: names[: max(2, round(len(names) * share))] for coarse, names in FINE_LABELS.items()}


def _fine_labels(
    user_of_image: IntArray, coarse: BoolArray, vocabulary: dict[str, tuple[str, ...]], partition: str, seed: int
) -> tuple[IntArray, npt.NDArray[np.uint16]]:
    """Fine-grained labels of a partition's images, as CSR over FINE_NAMES; each coarse label of an image has one."""
    per_coarse = _fine_counts(coarse, vocabulary, stream(seed, "synthetic fine counts", client=partition))
    spread = _spread(user_of_image, _FINE_TASTE)
    name_index = {name: k for k, name in enumerate(FINE_NAMES)}
    all_rows, all_labels = [], []
    for k, label in enumerate(COARSE_LABELS):
        rng = stream(seed, "synthetic fine labels", client=f"{partition}/{label}")
        names = vocabulary[label]
        rows = np.flatnonzero(coarse[:, k])
        picks = per_coarse[rows, k]
        totals = _fine_totals(names, int(picks.sum()), partition, len(coarse))
        users, user_row = np.unique(user_of_image[rows], return_inverse=True)
        taste = rng.standard_normal((len(users), len(names)), dtype=np.float32) * spread[users, None]
        scores = _gumbel(rng, (len(rows), len(names)))
        for start in range(0, len(rows), 8192):
            scores[start : start + 8192] += taste[user_row[start : start + 8192]]
        local_row, local_label = np.nonzero(_choose(scores, picks, totals, rng))
        all_rows.append(rows[local_row])
        all_labels.append(np.array([name_index[name] for name in names])[local_label])
    image, fine = np.concatenate(all_rows), np.concatenate(all_labels)
    order = np.lexsort((fine, image))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=len(coarse)))]).astype(np.int64)
    return offsets, fine[order].astype(np.uint16)


def _fine_counts(coarse: BoolArray, vocabulary: dict[str, tuple[str, ...]], rng: np.random.Generator) -> IntArray:
    """Number of fine-grained labels per image and coarse label: int64 [n, 17], at least one where the label is."""
    n = len(coarse)
    capacity = np.array([len(vocabulary[label]) for label in COARSE_LABELS])
    weights = np.array([_FINE_PER_COARSE.get(label, _FINE_PER_RARE_COARSE) - 1 for label in COARSE_LABELS])
    present = coarse.sum(axis=1)
    mean = FINE_LABELS_PER_IMAGE.mean - COARSE_LABELS_PER_IMAGE.mean
    variance = (FINE_LABELS_PER_IMAGE.std or 1.0) ** 2 - (COARSE_LABELS_PER_IMAGE.std or 1.0) ** 2
    shape = mean**2 / (variance - mean)
    # Labels beyond the first of each coarse label: Poisson with a gamma-distributed mean, for the long tail.
    extra = rng.poisson(rng.gamma(shape, mean / shape, n))
    extra = np.minimum(extra, FINE_LABELS_PER_IMAGE.maximum - present)
    if n >= 1000:
        room = (coarse * capacity).sum(axis=1)
        extra[np.argmax(room)] = FINE_LABELS_PER_IMAGE.maximum - present[np.argmax(room)]
    rows = np.repeat(np.arange(n), extra)
    edges = np.cumsum(coarse * weights, axis=1)
    point = rng.random(len(rows)) * edges[rows, -1]
    column = (edges[rows] <= point[:, None]).sum(axis=1)
    counts = coarse.astype(np.int64)
    np.add.at(counts, (rows, column), 1)
    return np.asarray(np.minimum(counts, capacity))


def _fine_totals(names: tuple[str, ...], total: int, partition: str, n: int) -> IntArray:
    """Images per fine-grained label of one coarse label: the published head, then a falling tail: int64 [k]."""
    head = np.array([FINE_HEAD_COUNTS.get(name, 0) for name in names])
    totals = np.where(head > 0, partition_totals(head, partition, n), 0)
    tail = np.flatnonzero(head == 0)
    if totals.sum() > total or not len(tail):
        return apportion(np.maximum(head, 1), total)
    totals[tail] = apportion((np.arange(len(tail)) + 3.0) ** -_TAIL_EXPONENT, total - int(totals.sum()))
    return totals
