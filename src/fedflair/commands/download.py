"""``fedflair download``."""

from fedflair.data.download.run import download

__all__ = ["download"]
