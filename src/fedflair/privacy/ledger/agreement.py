"""Does what a file says agree with what was computed anew? One line for each field that does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from fedflair.system.terminal import one_line

# Another machine calibrates to other last digits.
_RELATIVE = 1e-6
_MOST_SHOWN = 80


def differences(found: Any, expected: Any, name: str = "") -> Iterator[str]:
    """What ``found``, any JSON value, has otherwise than ``expected``: the field's name and both values, a line each.

    A field of a mapping in a mapping is named ``outer.inner``. Numbers agree to a millionth, whole ones exactly.
    """
    if not isinstance(expected, Mapping):
        if not same(found, expected):
            yield f"{name} {shown(found)}, which should be {shown(expected)}"
        return
    if not isinstance(found, Mapping):
        yield f"{name} {shown(found)}, which should be fields with a value each"
        return
    for field in (*expected, *(field for field in found if field not in expected)):
        inner = f"{name}.{field}" if name else one_line(str(field))[:_MOST_SHOWN]
        if field not in found:
            yield f"no {inner}, which should be {shown(expected[field])}"
        elif field not in expected:
            yield f"{inner} {shown(found[field])}, which does not belong there"
        else:
            yield from differences(found[field], expected[field], inner)


def same(found: Any, expected: Any) -> bool:
    """Whether two plain JSON values agree; a whole number, a truth value and a text are never each other."""
    if is_number(found) and is_number(expected):
        if isinstance(expected, int):
            return bool(found == expected)
        return math.isclose(found, expected, rel_tol=_RELATIVE)
    return type(found) is type(expected) and bool(found == expected)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value for a message: one line, and not longer than one can read."""
    text = one_line(str(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
