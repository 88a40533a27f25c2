"""``fedflair audit``."""

from fedflair.audit.measure import audit

__all__ = ["audit"]
