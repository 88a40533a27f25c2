"""``fedflair prepare``."""

from fedflair.data.store.prepare import prepare

__all__ = ["prepare"]
