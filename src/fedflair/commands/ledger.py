"""``fedflair ledger``: is a run's privacy ledger sound, and what epsilon does it lead to?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import of_run
from fedflair.privacy.ledger.record import FILE_NAME
from fedflair.privacy.ledger.verification import verify
from fedflair.system.terminal import say


def ledger(action: Literal["verify"], run: Path) -> None:
    """Checks a run's privacy ledger and computes its epsilon anew, from nothing but the run's folder.

    Args:
        action: verify is the only one.
        run: Folder of the run.
    """
    found = verify(run)
    path = run / FILE_NAME
    if found.problems:
        more = f" (and {len(found.problems) - 1} more problems)" if len(found.problems) > 1 else ""
        raise PrivacyError(f"{path}: {found.problems[0]}{more}; do not trust this run's epsilon")
    say(f"{path}: sound, {found.num_rounds} rounds")
    facts = {
        "delta": found.delta,
        "epsilon": found.epsilon,
        "run_epsilon": found.run_epsilon,
        "simulated": found.simulated,
        "noise_from_seed": found.noise_from_seed,
        "artificial_users": found.artificial_users,
    }
    for note in [*of_run(facts), *found.notes]:
        say(note)
