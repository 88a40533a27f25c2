"""``fedflair ledger``: is a run's privacy ledger sound, and what epsilon does it lead to?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import of_run
from fedflair.privacy.ledger.lines import FILE_NAME
from fedflair.system.terminal import say


def ledger(action: Literal["verify"], run: Path, *, ledger_anchor: Path | None = None) -> None:
    """Checks a run's privacy ledger against its folder and computes its noise and its epsilon anew.

    Args:
        action: verify is the only one.
        run: Folder of the run.
        ledger_anchor: The file that the training left the hashes of the ledger's lines in.
    """
    # Here, as what computes a ledger anew takes two seconds to load.
    from fedflair.training.verification import verify

    found = verify(run, ledger_anchor)
    path = run / FILE_NAME
    if found.problems:
        more = f" (and {len(found.problems) - 1} more problems)" if len(found.problems) > 1 else ""
        raise PrivacyError(f"{path}: {found.problems[0]}{more}; do not trust this run's epsilon")
    agreed = "" if ledger_anchor is None else f", as anchored in {ledger_anchor}"
    say(f"{path}: sound, {found.num_rounds} rounds{agreed}")
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
