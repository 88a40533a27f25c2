"""More rounds for a run that has begun: where it then is, bit for bit, the run that had as many from its beginning.

That is so where nothing that was done depends on how many rounds there would be: no learning rate that falls to its end
in the last one, and no noise that was scaled such that all rounds together cost a given epsilon.
"""

from __future__ import annotations

from fedflair.config.names import OWN_NAMES
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import ROUNDS

# Whose noise is that of one release, whatever follows; of all others it is scaled to all rounds, or nobody knows.
_EACH_ROUND = ("none", "norm_clipping_only", "gaussian", "laplace")
# A schedule -> the rates that it goes between.
_SCHEDULES = {
    "local_lr_schedule": ("local_learning_rate", "local_lr_end"),
    "central_lr_schedule": ("learning_rate", "central_lr_end"),
}


def check_more_rounds(before: TrainConfig, num_rounds: int, folder: RunFolder) -> None:
    """Raises ConfigError, with the reason and what to do, where the run cannot be given ``num_rounds`` rounds.

    before: its configuration, with the fewer rounds that it has.
    """
    had = before.option(ROUNDS)
    remedy = f"start a new run of {num_rounds:,} rounds, or one with --start_from {folder.path} from this one's model"
    if not folder.provenance.is_file():
        raise ConfigError(
            f"{ROUNDS}: the run in {folder.path} was begun by an earlier fedflair, which did not write what it belongs "
            f"to; {remedy}"
        )
    for schedule, (start, end) in _SCHEDULES.items():
        if before.option(schedule) != "constant" and before.option(start) != before.option(end):
            raise ConfigError(
                f"{ROUNDS}: {schedule} {before.option(schedule)} was to end in round {had:,}, so that every round of a "
                f"run of {num_rounds:,} would have been another one; {remedy}"
            )
    for option in ("central_privacy_mechanism", "local_privacy_mechanism"):
        name = before.option(option)
        if name in _EACH_ROUND:
            continue
        if name in OWN_NAMES[option]:
            raise ConfigError(
                f"{ROUNDS}: the noise of {name} was scaled for the run's epsilon over {had:,} rounds, and each round "
                f"more would cost more than that; {remedy}"
            )
        raise ConfigError(
            f"{ROUNDS}: whether the noise of {name}, a plugin's, was scaled for {had:,} rounds is not known here; "
            f"{remedy}"
        )


def notes_on_more_rounds(before: TrainConfig, num_rounds: int, done: int) -> list[str]:
    """What is to be known of a run that had fewer rounds and is given ``num_rounds``, a line each. done: so far."""
    had, frequency = before.option(ROUNDS), before.evaluation.evaluation_frequency
    notes = [f"{num_rounds:,} rounds instead of {had:,}: as a run that had as many from its beginning"]
    if done == had and had % frequency:
        notes.append(
            f"round {had:,} was scored as the last one, which the evaluation_frequency of {frequency:,} would have "
            "passed over: its model may be the best"
        )
    name = before.algorithm.algorithm_name
    if name not in OWN_NAMES["algorithm_name"]:
        notes.append(f"whether {name}, a plugin's, looks at the number of rounds is not known here")
    return notes
