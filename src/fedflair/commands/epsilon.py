"""``fedflair epsilon``."""

from fedflair.privacy.accounting.epsilon import epsilon

__all__ = ["epsilon"]
