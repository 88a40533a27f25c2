"""The report's table of scores, a row a group, and what has to be said below it."""

from __future__ import annotations

from collections.abc import Sequence

from fedflair.privacy.accounting import shown
from fedflair.privacy.ledger import coverage
from fedflair.report.data import Group
from fedflair.sweep.results import plus_minus, spread, words_of

METRICS = ("macro_ap", "micro_ap", "macro_f1", "loss")
HEADINGS = ("run", "setting", "rounds", "epsilon", *map(words_of, METRICS), "mean prevalence", "minutes")


def cells(group: Group) -> tuple[str, ...]:
    """The group's row of the table, as text, under ``HEADINGS``: of several runs mean ± standard deviation."""
    first = group.runs[0]
    return (
        group.name if len(group.runs) == 1 else f"{group.name} ({len(group.finished)} runs)",
        str(first.summary["setting"] if first.summary else _setting(group)),
        _rounds(group),
        shown.cell(*_promises(group)),
        *(plus_minus(spread(group.test(metric))) for metric in METRICS),
        plus_minus(spread(group.test("mean_prevalence")[:1])),
        plus_minus(spread([seconds / 60 for seconds in group.values(lambda run: run.seconds)]), ".1f"),
    )


def notes(groups: Sequence[Group]) -> list[str]:
    """Sentences that must stand below the table."""
    found = [
        "AP of a model that knows nothing is the label's prevalence: compare macro AP with the mean prevalence.",
    ]
    for group in groups:
        for run in group.runs:
            if run.summary is None:
                found.append(
                    f"{run.name} has not ended: round {run.num_rounds:,} of {_planned(group)}; its scores are missing."
                )
        found += dict.fromkeys(
            f"{shown.marks_of(privacy)} {group.name}: {shown.words(privacy)}".lstrip()
            for run in group.runs
            for privacy in (run.privacy, run.local_privacy)
            if privacy is not None and (shown.promises(privacy) or privacy.get("words"))
        )
    found += shown.legend(*(facts for group in groups for facts in _promises(group)))
    names = ", ".join(group.name for group in groups if any(run.is_private for run in group.runs))
    if names:
        found.append(
            f"Not covered by epsilon: every score, loss, count and time shown here of {names}; they are computed "
            "without noise."
        )
        found.append(coverage.TUNING)
    return found


def _promises(group: Group) -> tuple[shown.Facts | None, shown.Facts | None]:
    """(central, local) mechanism of the run of the group that promises least."""
    return shown.worst(run.privacy for run in group.runs), shown.worst(run.local_privacy for run in group.runs)


def _rounds(group: Group) -> str:
    counts = sorted({run.num_rounds for run in group.runs})
    text = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
    return text if len(group.finished) == len(group.runs) else f"{text} of {_planned(group)}"


def _planned(group: Group) -> str:
    return f"{group.runs[0].options.get('central_num_iterations', 0):,}"


def _setting(group: Group) -> str:
    options = group.runs[0].options
    mechanism = options.get("central_privacy_mechanism", "none")
    dataset = str(options.get("dataset", "-"))
    return dataset if mechanism == "none" else f"{dataset} + {mechanism}"
