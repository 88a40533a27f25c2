"""How an epsilon is shown to people, and written where there is no infinity."""

from __future__ import annotations

import math


def show(value: float | None) -> str:
    """An epsilon for reading: 4 digits; ``infinite`` where nothing is promised."""
    return "infinite" if value is None or not math.isfinite(value) else f"{value:.4g}"


def finite(value: float) -> float | None:
    """An epsilon as JSON has it: None is infinite."""
    return value if math.isfinite(value) else None
