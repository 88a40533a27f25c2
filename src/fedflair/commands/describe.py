"""``fedflair describe``."""

from fedflair.data.describe.tables import describe

__all__ = ["describe"]
