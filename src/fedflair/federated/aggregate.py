"""Streaming weighted sum of client updates, in a fixed order over fixed groups of clients.

Floating-point addition is not associative, so the order is part of the result: a cohort is cut into groups by
``cohort_groups``, each group is summed client by client, and the groups are summed along a fixed binary tree. Whoever
computes the groups, and in whatever order they finish, the total is the same bit for bit; and while one slow group is
awaited, what waits for it is a few partial sums (the logarithm of the number of groups), not one a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.privacy.mechanisms import ClipResult, CohortStats

GROUP_SIZE = 4
GROUP_SHARE = 1 / 128
# Of clients that train a head on features, each in a fraction of a millisecond: handing them out would take as long.
QUICK_GROUP_SIZE = 32
QUICK_GROUP_SHARE = 1 / 8

# What a client costs beside its images (weights copied, update clipped and summed), in images.
_CLIENT_IMAGES = 0.5


@dataclass(frozen=True)
class Release:
    """What anybody may know of a round's noisy sum, since it follows from that sum and from the noise's scale alone.

    mean_noise_variance: of the noise on each entry of the mean that the server takes: float64 [], or float32 [P].
    signal_to_noise: (|noisy sum|^2 - E) / E, where E is what the noise's squared length is expected to be: an estimate
        of the squared length of the clean sum over that of the noise. Below 0 where the noise happened to be short.
    """

    mean_noise_variance: torch.Tensor
    signal_to_noise: float


@dataclass(frozen=True)
class UpdateSum:
    """delta: float32 [P], sum of weight * delta; None before the first update.

    weight, cohort, metrics, extra: sums over the same clients (extra without weights).
    client_states: what the algorithm keeps of each of these clients; the driver stores them and passes on none.
    release: of the sum, once it has its noise; None where it gets none.
    """

    delta: torch.Tensor | None = None
    weight: float = 0.0
    cohort: CohortStats = field(default_factory=lambda: CohortStats(0, 0, 0))
    metrics: LocalMetrics = field(default_factory=LocalMetrics)
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    client_states: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    release: Release | None = None

    def add_client(
        self, client_id: str, update: ClientUpdate, clip: ClipResult, measured: tuple[float, ...] = ()
    ) -> UpdateSum:
        """The sum with one more update, and what is ``measured`` of it. Takes over its vectors and works in place."""
        if self.delta is None:
            delta = update.delta.mul_(update.weight)
        else:
            delta = self.delta.add_(update.delta, alpha=update.weight)
        cohort = CohortStats(1, int(clip.clipped), int(clip.rejected), measured, tuple(map(int, clip.groups)))
        states = self.client_states
        if update.client_state is not None:
            states = {**states, client_id: update.client_state}
        return UpdateSum(
            delta,
            self.weight + update.weight,
            self.cohort + cohort,
            self.metrics + update.metrics,
            _add_vectors(self.extra, update.extra),
            states,
        )

    def add_group(self, other: UpdateSum) -> UpdateSum:
        """The sum of both; works in place on ``self``'s vectors."""
        delta = other.delta if self.delta is None else self.delta
        if self.delta is not None and other.delta is not None:
            delta = self.delta.add_(other.delta)
        return UpdateSum(
            delta,
            self.weight + other.weight,
            self.cohort + other.cohort,
            self.metrics + other.metrics,
            _add_vectors(self.extra, other.extra),
            {**self.client_states, **other.client_states},
        )


class TreeSum:
    """Sums of ``num_groups`` groups, handed in as they finish; ``total`` is there after the last one."""

    def __init__(self, num_groups: int) -> None:
        self.total = UpdateSum()
        self._widths = [num_groups]
        while self._widths[-1] > 1:
            self._widths.append((self._widths[-1] + 1) // 2)
        self._waiting: dict[tuple[int, int], UpdateSum] = {}

    def add(self, group: int, partial: UpdateSum) -> None:
        """Merges the group's sum with its neighbours' as far up the tree as they are known."""
        index = group
        for level, width in enumerate(self._widths):
            if width == 1:
                self.total = partial
                return
            sibling = index ^ 1
            if sibling < width:
                other = self._waiting.pop((level, sibling), None)
                if other is None:
                    self._waiting[level, index] = partial
                    return
                partial = partial.add_group(other) if index < sibling else other.add_group(partial)
            index //= 2


def cohort_groups(cohort: list[str], num_images: Callable[[str], int], *, quick: bool = False) -> list[list[str]]:
    """Cuts a cohort into groups, clients with most images first (ties in the cohort's order).

    A group is what a worker takes at once, and what comes back as one sum. It has at most ``GROUP_SIZE`` clients and at
    most ``GROUP_SHARE`` of the cohort's work; a client of more than that is a group of its own. So the largest user
    holds up nobody, and the last groups to be handed out are small. Depends on nothing but the cohort.

    quick: groups are larger (``QUICK_GROUP_SIZE``, ``QUICK_GROUP_SHARE``).
    """
    size, share = (QUICK_GROUP_SIZE, QUICK_GROUP_SHARE) if quick else (GROUP_SIZE, GROUP_SHARE)
    work = {client: num_images(client) + _CLIENT_IMAGES for client in cohort}
    limit = share * sum(work.values())
    groups: list[list[str]] = []
    room = 0.0
    for client in sorted(cohort, key=work.__getitem__, reverse=True):
        if not groups or work[client] > room or len(groups[-1]) == size:
            groups.append([])
            room = limit
        groups[-1].append(client)
        room -= work[client]
    return groups


def _add_vectors(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Sums by name, in place on ``one``'s vectors; a name that only one side has is taken over."""
    return {**other, **{name: vector.add_(other[name]) if name in other else vector for name, vector in one.items()}}
