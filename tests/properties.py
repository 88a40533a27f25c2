"""How many examples a test of a property takes, in the suite and in ``make fuzz``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SAME, FUZZ = "same", "fuzz"
_NUM_EXAMPLES = 100

# On a busy machine an example may take any time.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run of the same commit, so that whoever is told of a failure has it too.
settings.register_profile(SAME, _UNTIMED, max_examples=_NUM_EXAMPLES, derandomize=True, database=None)
# Others each time, and many times as many; what failed is kept, and tried first in the next run.
settings.register_profile(FUZZ, _UNTIMED, max_examples=20 * _NUM_EXAMPLES, derandomize=False)


def examples(number: int, *, keeps_fixtures: bool = False) -> settings:
    """So many examples in place of a hundred, and as many times more as the chosen profile has more.

    keeps_fixtures: the test's examples may share what pytest makes once for all of them, such as its folder.
    """
    chosen = settings()
    checks = [HealthCheck.function_scoped_fixture] if keeps_fixtures else []
    return settings(
        max_examples=number * chosen.max_examples // _NUM_EXAMPLES,
        suppress_health_check=[*chosen.suppress_health_check, *checks],
    )
