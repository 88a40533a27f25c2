"""``fedflair ledger``: is a run's privacy ledger sound, and what epsilon does it lead to?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import show
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
    whose = "simulated deployment" if found.simulated else "run"
    say(f"{path}: sound, {found.num_rounds} rounds")
    say(f"epsilon of the {whose}: {show(found.epsilon)} at delta {found.delta:g}")
    if found.simulated:
        say(f"epsilon of the run itself: {show(found.run_epsilon)} at delta {found.delta:g}")
    for note in found.notes:
        say(note)
