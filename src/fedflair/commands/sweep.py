"""``fedflair sweep``."""

from fedflair.sweep.trials import sweep_command as sweep

__all__ = ["sweep"]
