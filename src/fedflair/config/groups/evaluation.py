"""How often the model is scored, on whom, and which one is the best: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_one, at_least_zero


@dataclass(frozen=True)
class EvaluationOptions:
    """Evaluation: how often, on whom, and what the best model is.

    Args:
        evaluation_frequency: Rounds between evaluations on the whole val partition; checkpoints are written then too.
        central_eval_batch_size: Images in an evaluation batch.
        val_cohort_size: Clients of val that each evaluation also scores one by one; 0 is none.
        local_evaluation: Score each client of a cohort on its own images before and after it trains.
        early_stopping_patience: Evaluations without a better best_metric after which the run ends; 0 is never.
        best_metric: Metric on val that chooses the best model.
    """

    evaluation_frequency: int = 20
    central_eval_batch_size: int = 512
    val_cohort_size: int = 0
    local_evaluation: bool = False
    early_stopping_patience: int = 0
    best_metric: Literal["macro_ap", "micro_ap", "macro_f1", "micro_f1"] = "macro_ap"

    def __post_init__(self) -> None:
        at_least_one(self, "evaluation_frequency", "central_eval_batch_size")
        at_least_zero(self, "val_cohort_size", "early_stopping_patience")
