"""How the model is trained, and for how many rounds: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_one, at_least_one_if_given, at_least_zero, positive


@dataclass(frozen=True)
class AlgorithmOptions:
    """Algorithm: how the model is trained, and for how many rounds.

    Args:
        algorithm_name: fedavg, fedprox, adafedprox, scaffold, reptile, or central (no clients at all); or a plugin's.
        central_num_iterations: Number of rounds.
        mu: Weight of the proximal term (fedprox); where it starts (adafedprox).
        adafedprox_metric_name: Metric that mu is adapted on, lower is better; a column of metrics.jsonl.
        adafedprox_adapt_frequency: Rounds between adaptations of mu; evaluation_frequency if not given.
        adafedprox_step_size: How far one adaptation moves mu.
        adafedprox_decrease_after: Improvements in a row before mu is lowered.
        scaffold_option: A client's new control variate: gradient at the server's model (1), or from the update (2).
        scaffold_states: Where clients' control variates are kept.
        scaffold_dtype: How they are stored.
        scaffold_max_clients: Most clients whose control variates are kept, oldest forgotten first; all if not given.
        like: Take what fedflair means otherwise as this tool does: pfl (pfl-research's FLAIR benchmark: its names, its
            defaults, and its meanings, which docs/reproducing.md lists).
        central_batch_size: Images in a step of centralised training (algorithm_name central, one step a round).
    """

    algorithm_name: str = "fedavg"
    central_num_iterations: int = 5000
    mu: float = 0.01
    adafedprox_metric_name: str = "val/macro_loss"
    adafedprox_adapt_frequency: int | None = None
    adafedprox_step_size: float = 0.1
    adafedprox_decrease_after: int = 1
    scaffold_option: Literal[1, 2] = 2
    scaffold_states: Literal["disk", "memory"] = "disk"
    scaffold_dtype: Literal["float32", "bfloat16"] = "float32"
    scaffold_max_clients: int | None = None
    like: Literal["pfl"] | None = None
    central_batch_size: int = 512

    def __post_init__(self) -> None:
        at_least_one(self, "central_num_iterations", "adafedprox_decrease_after", "central_batch_size")
        at_least_one_if_given(self, "adafedprox_adapt_frequency", "scaffold_max_clients")
        at_least_zero(self, "mu")
        positive(self, "adafedprox_step_size")
