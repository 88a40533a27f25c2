"""Loss and counts of a cohort with noise: a few more entries of each client's update, under the same clipping bound.

With each update of norm <= C goes a vector m of norm <= a, a^p / (C^p + a^p) being the share of the budget that metrics
get (p is the order of the norm, 2 but for Laplace). Update and m together have norm <= (C^p + a^p)^(1/p), and go
through the mechanism as one vector: one release, accounted by the very event that it has without metrics, whatever
the mechanism does with its noise over the rounds. What metrics cost is noise on the sum: (1 - share)^(-1/p) as much.

m is a / 4^(1/p) times (1, loss, images, whole), each but the first between -1 and 1: the client's mean loss over the
images it trained on, out of [0, loss bound]; its images, out of [0, images bound]; and 1 for an update that was left
whole, -1 for one that was clipped. The entries are cut to a grid on which their sum is exact (``clipping.exact_grid``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedflair.errors import PrivacyError
from fedflair.privacy.contract import (
    ClipResult,
    CohortStats,
    MakeMechanism,
    Measure,
    Mechanism,
    MechanismState,
    PrivacyOptions,
)
from fedflair.privacy.mechanisms.clipping import exact_grid
from fedflair.sampling import SamplerDescription

NUM_ENTRIES = 4
# Where a mechanism's state keeps what the last round released of metrics: the four sums, float64.
STATE = "private_metrics"


@dataclass(frozen=True)
class Split:
    """How a budget is shared between an update and its metrics.

    share: of the metrics, in (0, 1). order: of the norm. loss_bound, images_bound: what counts of a client's at most.
    """

    share: float
    order: float
    loss_bound: float
    images_bound: int

    @property
    def of_update(self) -> float:
        """The update's bound over that of update and metrics together."""
        return float((1 - self.share) ** (1 / self.order))

    @property
    def entry(self) -> float:
        """The largest entry of a client's metrics, over the update's bound."""
        return float((self.share / (1 - self.share) / NUM_ENTRIES) ** (1 / self.order))


def split_of(options: PrivacyOptions) -> Split | None:
    """None where metrics get nothing."""
    if options.private_metrics == 0:
        return None
    # The order that the mechanism will have: only Laplace's norm is another one.
    order = 1.0 if options.mechanism == "laplace" else 2.0
    return Split(
        options.private_metrics, order, options.private_metrics_loss_bound, options.private_metrics_images_bound
    )


def measure_with(split: Split | None, cohort_size: int) -> Measure | None:
    """What a worker makes of a client's metrics: see ``Clipping.measure``."""
    if split is None:
        return None

    def measure(bound: float, loss: float, num_images: int, clip: ClipResult) -> tuple[float, ...]:
        entry = split.entry * bound
        grid = exact_grid(entry, cohort_size)
        # A loss that is no number is as bad as they come.
        share_of_loss = min(max(loss / split.loss_bound, 0.0), 1.0) if math.isfinite(loss) else 1.0
        share_of_images = min(num_images / split.images_bound, 1.0)
        whole = -1.0 if clip.clipped or clip.rejected else 1.0
        values = (1.0, 2 * share_of_loss - 1, 2 * share_of_images - 1, whole)
        return tuple(math.trunc(value * entry / grid) * grid for value in values)

    return measure


def with_metrics(
    make: MakeMechanism,
    options: PrivacyOptions,
    split: Split,
    sampler: SamplerDescription,
    num_rounds: int,
    noise_seed: int,
) -> Mechanism:
    """The mechanism that ``make`` makes, for updates with their metrics; the options' clipping bound is the updates'.

    The state is the mechanism's own for NUM_ENTRIES entries more, with ``STATE``. Raises PrivacyError for a mechanism
    of a norm that the split is not for.
    """
    joint = replace(options, clipping_bound=options.clipping_bound / split.of_update)
    inner = make(joint, sampler, num_rounds, noise_seed)
    if inner.event(1) is None:
        return make(options, sampler, num_rounds, noise_seed)
    if float(inner.description["order"]) != split.order:
        raise PrivacyError(
            f"private_metrics: {inner.name} bounds norms of order {inner.description['order']}, and metrics are "
            f"accounted for order {split.order:g}; leave it out"
        )

    def inwards(state: MechanismState) -> MechanismState:
        """The state as the mechanism has it, whose bound is that of update and metrics together."""
        own = {name: value for name, value in state.items() if name != STATE}
        return {**own, "clipping_bound": own["clipping_bound"] / split.of_update} if "clipping_bound" in own else own

    def outwards(state: MechanismState, sums: torch.Tensor) -> MechanismState:
        own = {**state, STATE: sums}
        return {**own, "clipping_bound": own["clipping_bound"] * split.of_update} if "clipping_bound" in own else own

    def bound_of(state: MechanismState) -> float:
        return inner.clipping_bound(inwards(state)) * split.of_update

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        metrics = torch.tensor(cohort.metrics or (0.0,) * NUM_ENTRIES, dtype=total.dtype, device=total.device)
        noisy, after = inner.add_noise(torch.cat([total, metrics]), cohort, round_, inwards(state))
        size = total.numel()
        sums = noisy[size:].double().cpu() / (split.entry * bound_of(state))
        return total.copy_(noisy[:size]), outwards(after, sums)

    start = outwards(inner.init(1), torch.zeros(NUM_ENTRIES, dtype=torch.float64))
    return replace(
        inner,
        init=lambda num_parameters: outwards(
            inner.init(num_parameters + NUM_ENTRIES), torch.zeros(NUM_ENTRIES, dtype=torch.float64)
        ),
        clipping_bound=bound_of,
        add_noise=add_noise,
        noise_std=lambda state, round_: inner.noise_std(inwards(state), round_),
        measure=measure_with(split, sampler.cohort_size),
        noisy_metrics=lambda state: named(split, [float(value) for value in state[STATE]]),
        description=_described(inner, split, inner.noise_std(inwards(start), 0) / (split.entry * bound_of(start))),
    )


def named(split: Split, sums: list[float]) -> dict[str, float]:
    """Four noisy sums, in units of one client's largest entry, as what they say of the cohort.

    Means are over the noisy number of clients, but not over less than one, and clamped to what a mean can be.
    """
    num_clients, loss, images, whole = sums
    among = max(num_clients, 1.0)
    return {
        "num_clients": num_clients,
        "loss": split.loss_bound * _share(loss / among),
        "num_images": split.images_bound * (images + num_clients) / 2,
        "share_clipped": _share(-whole / among),
    }


def _share(mean: float) -> float:
    """A mean of numbers in [-1, 1], as a share in [0, 1]."""
    return min(max((1 + mean) / 2, 0.0), 1.0)


def _described(inner: Mechanism, split: Split, clients_std: float) -> Mapping[str, Any]:
    """clients_std: of the noise on the number of clients in the first round."""
    facts = {
        **inner.description,
        "clipping_bound": inner.description["clipping_bound"] * split.of_update,
        "private_metrics": {
            "share": split.share,
            "loss_bound": split.loss_bound,
            "images_bound": split.images_bound,
            "num_clients_noise_std": clients_std,
        },
    }
    words = (
        f" Metrics with noise: {split.share:g} of the budget goes to loss and counts, whose noise is as that of "
        f"{clients_std:.3g} clients a round."
    )
    return {**facts, "words": f"{inner.description['words']}{words}"}
