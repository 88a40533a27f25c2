"""``fedflair synthesize``."""

from fedflair.data.synthetic.synthesize import synthesize

__all__ = ["synthesize"]
