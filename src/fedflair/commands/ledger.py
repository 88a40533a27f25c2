"""``fedflair ledger``."""

from fedflair.privacy.ledger.record import ledger

__all__ = ["ledger"]
