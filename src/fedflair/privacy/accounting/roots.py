"""Where a falling function is 0, in as few values of it as may be: a value of an accountant takes a second."""

from __future__ import annotations

from collections.abc import Callable

from fedflair.errors import PrivacyError

Point = tuple[float, float]


def _bracket(gap: Callable[[float], float], start: float, step: float) -> tuple[Point, Point]:
    """Two points with gap > 0 at the first and gap <= 0 at the second, near ``start``."""
    here = (start, gap(start))
    while abs(start) < 40:
        start += step if here[1] > 0 else -step
        there = (start, gap(start))
        if (there[1] > 0) != (here[1] > 0):
            return (here, there) if here[1] > 0 else (there, here)
        here, step = there, step * 2
    raise PrivacyError("epsilon: no amount of noise gives this epsilon at this delta; ask for another epsilon")


def root_of(gap: Callable[[float], float], start: float, step: float, tolerance: float) -> float:
    """Where the falling function ``gap`` is 0: secant steps inside a bracket that every step narrows."""
    (x0, y0), (x1, y1) = _bracket(gap, start, step)
    for _ in range(100):
        # Renyi's bounds jump where less than they can prove is asked for: no use in looking closer.
        if x1 - x0 < 1e-6:
            return x1
        middle = x0 + (x1 - x0) * y0 / (y0 - y1)
        if not x0 < middle < x1 or x1 - x0 > 0.5:
            middle = (x0 + x1) / 2
        value = gap(middle)
        if abs(value) <= tolerance:
            return middle
        # Illinois: an end that stays has its value halved, or it would hold the steps back for ever.
        if value > 0:
            x0, y0, y1 = middle, value, y1 / 2
        else:
            x1, y1, y0 = middle, value, y0 / 2
    raise PrivacyError("epsilon: calibration does not settle; ask for another epsilon or delta")
