"""What ``accountant: auto`` came to when a run was begun, which a later fedflair may choose otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedflair.config.train_config import TrainConfig
from fedflair.privacy.ledger.lines import FILE_NAME, read_lines


def first_line(run: Path) -> Mapping[str, Any]:
    """Line 1 of a run's ledger as far as it can be read; whether it is sound is for others to say."""
    path = run / FILE_NAME
    lines = read_lines(path) if path.is_file() else []
    return lines[0][0] if lines else {}


def as_begun(config: TrainConfig, first: Mapping[str, Any]) -> TrainConfig:
    """The run's configuration with the accountant that calibrated its noise, as line 1 of its ledger names it.

    Cohorts of fixed size were accounted by Renyi divergence before privacy loss distributions had a bound for them.
    That one holds too, and asks for more noise, so a line 1 that names it promises no less than it should.
    """
    asked = config.central_privacy.accountant
    if asked != "auto" or config.sampling != "fixed" or first.get("accountant") != "rdp":
        return config
    return replace(config, central_privacy=replace(config.central_privacy, accountant="rdp"))
