"""``fedflair report``."""

from fedflair.report.table import report

__all__ = ["report"]
