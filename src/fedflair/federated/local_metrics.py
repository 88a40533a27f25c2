"""What a client measured while it trained; mergeable, so that a cohort's are one of these too."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedflair.metrics.per_user import UserAverages


@dataclass(frozen=True)
class LocalMetrics:
    """Sums over the examples of local training; adding two merges them.

    before, after: the clients' metrics on their own images before and after they trained, where those were asked for.
    """

    loss_sum: float = 0.0
    num_examples: int = 0
    num_steps: int = 0
    before: UserAverages = field(default_factory=UserAverages)
    after: UserAverages = field(default_factory=UserAverages)

    def __add__(self, other: LocalMetrics) -> LocalMetrics:
        return LocalMetrics(
            self.loss_sum + other.loss_sum,
            self.num_examples + other.num_examples,
            self.num_steps + other.num_steps,
            self.before + other.before,
            self.after + other.after,
        )

    @property
    def loss(self) -> float:
        return self.loss_sum / self.num_examples if self.num_examples else float("nan")
