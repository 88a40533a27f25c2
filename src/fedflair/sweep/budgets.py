"""The privacy budgets of a sweep: from ``epsilons`` to the options of each point of the curve."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fedflair.config.names import OWN_NAMES
from fedflair.errors import ConfigError

NONE: Literal["none"] = "none"
_MECHANISM, _EPSILON = "central_privacy_mechanism", "central_epsilon"
# As in an audit: what the benchmark's private settings are made with.
_DEFAULT = "gaussian_moments_accountant"
_WITHOUT_EPSILON = ("none", "norm_clipping_only")


def budgets(
    epsilons: Sequence[Any], options: Mapping[str, Any]
) -> Iterator[tuple[float | Literal["none"] | None, dict[str, Any]]]:
    """(what was asked, the options that ask for it) of each budget; without epsilons (None, {}) alone.

    options: of the point but for its budget, before ``with_mechanism``.
    Raises ConfigError where they name one that promises no epsilon.
    """
    if not epsilons:
        yield None, {}
        return
    named = with_mechanism(options)[_MECHANISM]
    if named in _WITHOUT_EPSILON:
        others = ", ".join(name for name in OWN_NAMES[_MECHANISM] if name not in _WITHOUT_EPSILON)
        raise ConfigError(f"epsilons: {_MECHANISM} {named} promises none; drop it, or name one of {others}")
    for value in epsilons:
        if value == NONE:
            yield NONE, {_MECHANISM: "none"}
        else:
            yield float(value), {_EPSILON: value}


def with_mechanism(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a point with a budget, whose mechanism is gaussian_moments_accountant where none is named."""
    return {_MECHANISM: _DEFAULT, **options}


def epsilons_of(text: Sequence[Any]) -> list[Any]:
    """Budgets as numbers, where YAML takes 1e-1 for a word; what is no number stays."""
    return [_number(value) if isinstance(value, str) else value for value in text]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def check_epsilons(epsilons: Any, varied: Iterable[str], typed: Container[str]) -> None:
    """Raises ConfigError for what are no different budgets, or are said elsewhere too."""
    if not isinstance(epsilons, Sequence) or isinstance(epsilons, str):
        raise ConfigError("sweep: epsilons: must be a list of numbers and none, such as 0.5,2,8,none")
    if not epsilons:
        return
    for value in epsilons:
        if value != NONE and not _is_budget(value):
            raise ConfigError(f"sweep: epsilons: {value} is impossible; it must be a finite number above 0, or none")
    if len({str(value if value == NONE else float(value)) for value in epsilons}) < len(epsilons):
        raise ConfigError("sweep: epsilons: one is given twice; give it once")
    if _EPSILON in typed:
        raise ConfigError(f"{_EPSILON}: given on the command line, and varied by epsilons; drop one of the two")
    for name in varied:
        if name in (_EPSILON, _MECHANISM):
            raise ConfigError(f"sweep: {name}: varied beside epsilons; drop one of the two")


def _is_budget(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
