"""Checks of single values, which every group of options makes of its own: one line that says what would be right."""

from __future__ import annotations

import math

from fedflair.errors import ConfigError


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raises ConfigError, naming the option, its value and what is expected of it, unless ``holds``."""
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")


def at_least_one(options: object, *names: str) -> None:
    """Each of these options must be 1 or more."""
    for name in names:
        value = getattr(options, name)
        require(value >= 1, name, value, "at least 1")


def at_least_one_if_given(options: object, *names: str) -> None:
    """Each of these options must be 1 or more, or None."""
    for name in names:
        value = getattr(options, name)
        require(value is None or value >= 1, name, value, "at least 1")


def at_least_zero(options: object, *names: str) -> None:
    """Each of these options must be a finite number that is not negative."""
    for name in names:
        value = getattr(options, name)
        require(value >= 0 and math.isfinite(value), name, value, "a finite number of at least 0")


def positive(options: object, *names: str) -> None:
    """Each of these options must be a finite number above 0."""
    for name in names:
        value = getattr(options, name)
        require(value > 0 and math.isfinite(value), name, value, "a finite number above 0")


def fraction(options: object, *names: str) -> None:
    """Each of these options must be in [0, 1)."""
    for name in names:
        value = getattr(options, name)
        require(0 <= value < 1, name, value, "in [0, 1)")


def probability(options: object, *names: str) -> None:
    """Each of these options must be strictly between 0 and 1."""
    for name in names:
        value = getattr(options, name)
        require(0 < value < 1, name, value, "in (0, 1)")
