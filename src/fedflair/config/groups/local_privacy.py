"""What a client does to its own update before anybody sees it: a group of options."""

from __future__ import annotations

from dataclasses import dataclass

from fedflair.config.checks import at_least_one_if_given, positive, probability


@dataclass(frozen=True)
class LocalMechanismOptions:
    """Local privacy: what a client does to its own update.

    Args:
        local_privacy_mechanism: What a client does to its own update before the server sees it: none, gaussian,
            laplace, or norm_clipping_only; or a plugin's.
        local_epsilon: Privacy budget of one client's one update.
        local_delta: Failure probability of that guarantee.
        local_privacy_clipping_bound: Bound on the norm of a client's update, applied by the client.
        local_order: Order of that norm; the mechanism's own if not given.
    """

    local_privacy_mechanism: str = "none"
    local_epsilon: float = 2.0
    local_delta: float = 1e-5
    local_privacy_clipping_bound: float = 0.1
    local_order: float | None = None

    def __post_init__(self) -> None:
        at_least_one_if_given(self, "local_order")
        positive(self, "local_epsilon", "local_privacy_clipping_bound")
        probability(self, "local_delta")
