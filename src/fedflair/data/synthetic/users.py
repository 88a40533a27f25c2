"""The synthetic twin's users: how many photographs each has, in which partition he is, and what ids they bear.

The numbers of images are a quantile function at evenly spaced points, so the published quartiles and the maximum are
met exactly; the function's tail is stretched until the total is exact too. Then the users are dealt to the partitions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedflair.data.published import IMAGES_PER_USER, NUM_IMAGES, NUM_USERS, PARTITION_SIZES
from fedflair.data.store.packed import PARTITIONS
from fedflair.sampling import stream

IntArray = npt.NDArray[np.int64]

# (share of users below, images): knots of the quantile function, log-linear in between. Up to the third quartile they
# say where each count ends; the rest is fitted to the published mean and deviation.
_SIZE_KNOTS = (
    (0.0, 1.0),
    (0.45, 1.0),
    (0.487, 1.5),
    (0.615, 2.5),
    (0.675, 3.5),
    (0.725, 4.5),
    (0.77, 5.5),
    (0.87, 11.0),
    (0.95, 27.0),
    (0.99, 92.0),
    (0.999, 490.0),
)
# In a small dataset no user has more than this share of the images, or than this many, lest one user be the dataset.
_LARGEST_USER_SHARE = 0.05
_LARGE_USER = 40
_LARGEST_IMAGE_ID = 42_400_000_000


def apportion(weights: npt.ArrayLike, total: int) -> IntArray:
    """Integers in proportion to non-negative ``weights`` [k] that sum to ``total``, by largest remainder: int64 [k]."""
    shares = np.asarray(weights, dtype=np.float64)
    exact = shares * (total / shares.sum())
    counts = np.floor(exact).astype(np.int64)
    short = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    return np.asarray(counts)


def sizes_by_partition(num_users: int, seed: int) -> dict[str, IntArray]:
    """Images of each user, in random order within a partition."""
    users = apportion([PARTITION_SIZES[name].users for name in PARTITIONS], num_users)
    total = round(NUM_IMAGES * num_users / NUM_USERS)
    images = apportion([PARTITION_SIZES[name].images for name in PARTITIONS], total)
    sizes = _sizes(num_users, total)
    # Dealt like cards from the largest down, so that each partition gets its share of large users; train the largest.
    turns = np.concatenate([(np.arange(count) + 0.5 * (k > 0)) / count for k, count in enumerate(users)])
    owner = np.repeat(np.arange(len(PARTITIONS)), users)[np.argsort(turns, kind="stable")]
    hands = [np.sort(sizes[owner == k]) for k in range(len(PARTITIONS))]
    for k in (1, 2):
        _trade(hands[k], hands[0], int(images[k]))
    return {
        name: stream(seed, "synthetic user sizes", client=name).permutation(hand)
        for name, hand in zip(PARTITIONS, hands)
    }


def _sizes(num_users: int, total: int) -> IntArray:
    """Images per user, descending, ``total`` altogether: the quantile function at evenly spaced points."""
    knots = np.array([*_SIZE_KNOTS, (1.0, IMAGES_PER_USER.maximum)])
    points = 1 - (np.arange(num_users) + 0.5) / num_users
    curve = np.exp(np.interp(points, knots[:, 0], np.log(knots[:, 1])))
    third_quartile = IMAGES_PER_USER.quartiles[2]
    largest = min(IMAGES_PER_USER.maximum, max(_LARGE_USER, round(_LARGEST_USER_SHARE * total)))

    def stretched(power: float) -> IntArray:
        tail = third_quartile * np.maximum(curve / third_quartile, 1.0) ** power
        sizes = np.minimum(np.rint(np.where(curve > third_quartile, tail, curve)), largest).astype(np.int64)
        if num_users == NUM_USERS:
            sizes[0] = largest
        return np.asarray(sizes)

    low, high = 0.3, 3.0
    for _ in range(50):
        power = (low + high) / 2
        low, high = (power, high) if stretched(power).sum() <= total else (low, power)
    sizes = stretched(low)
    # What rounding left over goes to middling users, one image each; none of them is near a quartile or the maximum.
    above = np.flatnonzero((sizes > third_quartile) & (sizes < sizes[0]))
    rest = np.resize(above if len(above) else np.array([0]), total - int(sizes.sum()))
    np.add.at(sizes, rest, 1)
    return sizes


def _trade(hand: IntArray, other: IntArray, target: int) -> None:
    """Exchanges users between two partitions, in place, until ``hand`` holds ``target`` images."""
    while gap := target - int(hand.sum()):
        best = None
        for mine in np.unique(hand):
            # The partner that closes most of the gap without passing it.
            wanted = int(mine) + gap
            reachable = other[(other - mine) * np.sign(gap) > 0]
            reachable = reachable[(wanted - reachable) * np.sign(gap) >= 0]
            if len(reachable):
                partner = int(reachable[np.argmin(np.abs(wanted - reachable))])
                if best is None or abs(wanted - partner) < best[0]:
                    best = (abs(wanted - partner), int(mine), partner)
        if best is None:
            return
        _, mine, partner = best
        hand[np.argmax(hand == mine)], other[np.argmax(other == partner)] = partner, mine


def identifiers(num_users: int, num_images: int, seed: int) -> tuple[list[str], IntArray]:
    """Distinct user ids in the form of Flickr's, and distinct image ids, both in random order."""
    rng = stream(seed, "synthetic user ids")
    numbers = rng.permutation(np.unique(rng.integers(10_000, 200_000_000, 2 * num_users + 100)))[:num_users]
    offices = rng.integers(0, 9, num_users)
    rng = stream(seed, "synthetic image ids")
    drawn = np.unique(rng.integers(1_000_000, _LARGEST_IMAGE_ID, num_images + num_images // 50 + 100))
    image_ids = rng.permutation(drawn)[:num_images]
    return [f"{number}@N{office:02d}" for number, office in zip(numbers.tolist(), offices.tolist())], image_ids
