"""Where a run is kept, what its randomness comes from, and what is imported for it: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedflair.config.checks import at_least_zero
from fedflair.errors import ConfigError


@dataclass(frozen=True)
class RunOptions:
    """Run: where it is kept, what its randomness comes from, and what is imported for it.

    Args:
        run: Folder of the run; a name is made from the setting and the time if not given.
        resume: Continue the run in that folder from its last checkpoint.
        resume_from: The checkpoint to continue from: the last, or the one before it where the last is damaged.
        plugins: Modules to import, which add algorithms, mechanisms, models, weights or compressions; repeatable.
        seed: Seed of every random choice but private noise.
        noise_from_seed: Draw the privacy noise from seed as well: repeatable, for tests only, never private.
        ledger_anchor: Leave the hash of each line of a private run's ledger in this file too, kept elsewhere.
        wandb_project_id: Send the metrics to this Weights & Biases project too.
    """

    run: Path | None = None
    resume: bool = False
    resume_from: Literal["last", "previous"] = "last"
    plugins: tuple[str, ...] = ()
    seed: int = 0
    noise_from_seed: bool = False
    ledger_anchor: Path | None = None
    wandb_project_id: str | None = None

    def __post_init__(self) -> None:
        at_least_zero(self, "seed")
        for name in self.plugins:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ConfigError(f"plugins: {name!r} is no module's name; give it as in an import, such as my_plugin")
        if len(set(self.plugins)) < len(self.plugins):
            raise ConfigError("plugins: one is given twice; give it once")
        if self.resume_from != "last" and not self.resume:
            raise ConfigError(f"resume_from: {self.resume_from} says where to continue; give --resume with it")
