"""``fedflair mechanisms``: what each mechanism and sampling would add at a budget, the table that ``auto`` goes by."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Literal

from fedflair.errors import ConfigError
from fedflair.runs.json_text import dumps
from fedflair.sampling import SamplerDescription
from fedflair.system.terminal import say


def mechanisms(
    *,
    rounds: int,
    epsilon: float,
    delta: float,
    cohort_size: int,
    population: int,
    cohort_sampling: Literal["auto", "poisson", "b_min_separation", "rotating"] = "auto",
    min_separation: int | None = None,
    num_buffers: int | None = None,
    json_: bool = False,
) -> None:
    """Compares mechanisms and samplings at one budget, the least error first.

    Args:
        rounds: Number of rounds.
        epsilon: Budget of all rounds.
        delta: Failure probability of the guarantee, below 1/population.
        cohort_size: Clients in a cohort, expected (by coins) or exact (rotating).
        population: Clients that cohorts are drawn from.
        cohort_sampling: Cohorts by secret coins, in groups that take turns (poisson) or of those who were in none of
            the last ones (b_min_separation), or all clients in turn; auto compares them all.
        min_separation: Rounds between two cohorts of one client; else as many as there can be, or the best.
        num_buffers: Vectors as long as the model that correlated noise keeps; else chosen.
        json_: Print JSON.
    """
    asked = {
        "rounds": rounds,
        "cohort_size": cohort_size,
        "population": population,
        "min_separation": min_separation,
        "num_buffers": num_buffers,
    }
    for name, value in asked.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}: {value} is impossible; it must be at least 1")
    if cohort_size > population:
        raise ConfigError(f"cohort_size: {cohort_size} is more than the population of {population}; lower it")
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ConfigError(f"epsilon: {epsilon} is impossible; it must be a finite number above 0")
    # Here, as what draws noise takes two seconds to load.
    from fedflair.privacy.contract import PrivacyOptions
    from fedflair.privacy.mechanisms.auto import CHOSEN_AMONG, candidates, choice_lines, chosen
    from fedflair.privacy.mechanisms.deployment import check_delta

    check_delta("delta", delta, population, "the population")
    options = PrivacyOptions(
        "auto", epsilon=epsilon, delta=delta, min_separation=min_separation, num_buffers=num_buffers
    )
    kinds = CHOSEN_AMONG if cohort_sampling == "auto" else (cohort_sampling,)
    samplers = [SamplerDescription(kind, cohort_size, population) for kind in kinds]
    found = candidates(options, samplers, rounds)
    best = chosen(found)
    if json_:
        say(dumps({"chosen": best.name, "candidates": [asdict(one) for one in found]}, indent=2))
        return
    say("\n".join([*choice_lines({one.name: one.row() for one in found}), f"auto: {best.name}"]))
