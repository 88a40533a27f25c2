"""Tree aggregation, the classical baseline (Dwork et al. 2010; Chan, Shi and Song 2011; DP-FTRL, arXiv:2103.00039).

Rounds are leaves of binary trees, the sum of each block of 1, 2, 4, ... rounds gets noise of its own, and a running sum
is made of the fewest blocks. Only blocks that are left children, or a whole tree, are ever in one of those, and each
round ends exactly one of them: so a round draws one fresh noise, for the largest block of those that it ends, and takes
back the noises of the smaller blocks that this one replaces. Row t of C is 1 on the rounds of round t's block.

After 2^L rounds the tree is complete and another one begins (a restart); L vectors are kept. What running sums owe to
other ways of reading a tree (Honaker's) is not made use of.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fedflair.privacy.mechanisms.correlated.strategy import State, Strategy, Vector, participations


def tree_aggregation(num_rounds: int, num_levels: int) -> Strategy:
    """Trees of 2^``num_levels`` rounds."""
    levels = np.array([_level(round_, num_levels) for round_ in range(num_rounds)])
    whole, within = np.divmod(np.arange(1, num_rounds + 1), 1 << num_levels)
    blocks = whole + np.array([int(number).bit_count() for number in within])

    def init(num_parameters: int) -> State:
        return {"blocks": torch.zeros(num_levels, num_parameters)}

    def correlate(fresh: torch.Tensor, round_: int, state: State) -> tuple[torch.Tensor, State]:
        level, kept = _level(round_, num_levels), state["blocks"].to(fresh.device)
        if level == num_levels:
            return fresh.sub_(kept.sum(0)), {"blocks": kept}
        # The block's own row is read by no other round before a larger block ends, and never by this one.
        kept[level].copy_(fresh)
        return fresh.sub_(kept[:level].sum(0)), {"blocks": kept}

    return Strategy(
        name="tree_aggregation",
        num_buffers=num_levels,
        growth=np.sqrt(1.0 + levels),
        errors=np.sqrt(blocks),
        sensitivity=lambda rounds, min_separation: tree_sensitivity(rounds, min_separation, num_levels),
        init=init,
        correlate=correlate,
        matrix=lambda rounds, state: tree_matrix(rounds, num_levels),
    )


def tree_matrix(num_rounds: int, num_levels: int) -> Vector:
    """Row t is 1 on the rounds of the block that round t ends: float64 [n, n]."""
    matrix = np.zeros((num_rounds, num_rounds))
    for round_ in range(num_rounds):
        matrix[round_, round_ + 1 - (1 << _level(round_, num_levels)) : round_ + 1] = 1.0
    return matrix


def tree_sensitivity(num_rounds: int, min_separation: int, num_levels: int) -> float:
    """An upper bound: the most that participations spread over blocks can count, each block's number squared.

    A block of n rounds holds ceil(n / b) participations at most, and all rounds together as many as that; how near the
    last one of a block is to the first one of the next is not looked at.
    """
    at_most = participations(num_rounds, min_separation)
    num_levels = min(num_levels, num_rounds.bit_length())

    def capacity(level: int) -> int:
        return min(at_most, participations(1 << level, min_separation))

    # inside[level][n]: the most that n participations in a block of 2^level rounds count in the blocks inside it that
    # running sums are made of.
    inside = [np.zeros(capacity(0) + 1)]
    for level in range(num_levels):
        own = np.arange(len(inside[level])) ** 2
        inside.append(_spread(inside[level] + own, inside[level], capacity(level + 1)))
    counts = [one + np.arange(len(one)) ** 2 for one in inside]
    whole, within = divmod(num_rounds, 1 << num_levels)
    found, trees = np.zeros(1), counts[num_levels]
    for level in range(num_levels):
        if within >> level & 1:
            found = _spread(found, counts[level], at_most)
    while whole:
        if whole & 1:
            found = _spread(found, trees, at_most)
        trees, whole = _spread(trees, trees, at_most), whole >> 1
    return math.sqrt(float(found.max()))


def _spread(first: Vector, second: Vector, at_most: int) -> Vector:
    """What 0, 1, ... participations in two places count at most, by what they count in each."""
    found = np.full(min(len(first) + len(second) - 2, at_most) + 1, -np.inf)
    for here, value in enumerate(first):
        there = second[: max(len(found) - here, 0)]
        found[here : here + len(there)] = np.maximum(found[here : here + len(there)], value + there)
    return found


def _level(round_: int, num_levels: int) -> int:
    """log2 of the length of the largest block that the round ends."""
    number = round_ + 1
    return min((number & -number).bit_length() - 1, num_levels)
