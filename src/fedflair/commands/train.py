"""``fedflair train``."""

from fedflair.config.options import train_command as train

__all__ = ["train"]
