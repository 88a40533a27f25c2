"""The first line of a ledger: is every field there, and of the kind that the verification computes with?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any


def terms_problem(terms: Mapping[str, Any]) -> str:
    """What is wrong with the fields of a ledger's first line, the first of them by name; '' for nothing."""
    found = _problem(terms, _TERMS, "")
    for name in ("event", "run_event"):
        found = found or _problem(terms[name], _EVENT, f"{name}: ")
    if not found and terms["adaptive_clipping"]:
        found = _problem(terms, {"run_count_noise_std": _is_positive}, "")
    return found and f"has no sound {found}"


def _problem(fields: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]], where: str) -> str:
    return next((f"{where}{name}" for name, is_sound in kinds.items() if not is_sound(fields.get(name))), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    # Far beyond any use, and near enough for all that is computed of it to be a number.
    return _is_number(value) and 1e-30 < value < 1e30


def _is_share(value: Any) -> bool:
    return _is_positive(value) and value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 40


def _is_one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_SHARED: dict[str, Callable[[Any], bool]] = {
    "noise_multiplier": _is_positive,
    # Earlier ledgers call zero_out add_remove, which costs the same.
    "neighbouring": _is_one_of("zero_out", "add_remove", "replace_one"),
    "sampling": _is_one_of("none", "poisson", "fixed"),
    "sampling_rate": _is_share,
}
_EVENT = {**_SHARED, "noise": _is_one_of("gaussian", "laplace"), "count": _is_count}
_TERMS = {
    **_SHARED,
    "delta": lambda value: _is_share(value) and value < 1,
    "noise_std": _is_positive,
    "clipping_bound": _is_positive,
    "accountant": _is_one_of("pld", "rdp"),
    "cohort_size": _is_count,
    "noise_cohort_size": _is_count,
    "population": _is_count,
    "rounds": _is_count,
    "min_separation": _is_count,
    "run_sampling_rate": _is_share,
    "simulated": _is_bool,
    "adaptive_clipping": _is_bool,
    "noise_seed_commitment": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "event": lambda value: isinstance(value, dict),
    "run_event": lambda value: isinstance(value, dict),
}
