"""``fedflair convert``."""

from fedflair.data.store.convert import convert

__all__ = ["convert"]
