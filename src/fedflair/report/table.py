"""The report's table of scores, a row a group, and what has to be said of it."""

from __future__ import annotations

from collections.abc import Sequence

from fedflair.privacy.accounting import shown
from fedflair.privacy.ledger import coverage
from fedflair.report.data import Group
from fedflair.sweep.results import plus_minus, spread, words_of

METRICS = ("macro_ap", "micro_ap", "macro_f1", "loss")
NOISE = "noise over bound"
HEADINGS = ("run", "rounds", "epsilon", NOISE, *map(words_of, METRICS), "mean prevalence", "minutes")
NOISE_LEGEND = (
    f"{NOISE}: the length of the noise on a round's mean update over the clipping bound, the longest update that a "
    "client can have."
)


def cells(group: Group) -> tuple[str, ...]:
    """The group's row of the table, as text, under ``HEADINGS``: of several runs mean ± standard deviation."""
    return (
        group.name if len(group.runs) == 1 else f"{group.name} ({len(group.finished)} runs)",
        _rounds(group),
        shown.cell(*promises(group)),
        noise_cell(group),
        *(plus_minus(spread(group.test(metric))) for metric in METRICS),
        plus_minus(spread(group.test("mean_prevalence")[:1])),
        plus_minus(spread([seconds / 60 for seconds in group.values(lambda run: run.seconds)]), ".1f"),
    )


def noise_cell(group: Group) -> str:
    """The longest of the group's noises over the bound; ``?`` where there is one of which the folder does not say."""
    lengths = group.values(lambda run: run.noise_over_bound)
    if not lengths:
        return "?" if shown.promises(shown.worst(run.privacy for run in group.runs)) else "-"
    return f"{max(lengths):.2g}" if max(lengths) < 10 else f"{max(lengths):,.0f}"


def notes(groups: Sequence[Group]) -> list[str]:
    """Sentences that must stand below the table."""
    found = [
        "AP of a model that knows nothing is the label's prevalence: compare macro AP with the mean prevalence.",
    ]
    if any(noise_cell(group) != "-" for group in groups):
        found.append(NOISE_LEGEND)
    for group in groups:
        for run in group.runs:
            if run.summary is None:
                found.append(
                    f"{run.name} has not ended: round {run.num_rounds:,} of {_planned(group)}; its scores are missing."
                )
    found += shown.legend(*(facts for group in groups for facts in promises(group)))
    names = ", ".join(group.name for group in groups if any(run.is_private for run in group.runs))
    if names:
        found.append(
            f"Not covered by epsilon: every score, loss, count and time shown here of {names}; they are computed "
            "without noise."
        )
        found.append(coverage.TUNING)
    return found


def promised(groups: Sequence[Group]) -> list[str]:
    """What each private group's mechanisms say of themselves, each once."""
    return list(
        dict.fromkeys(
            f"{shown.marks_of(privacy)} {group.name}: {shown.words(privacy)}".lstrip()
            for group in groups
            for run in group.runs
            for privacy in (run.privacy, run.local_privacy)
            if privacy is not None and (shown.promises(privacy) or privacy.get("words"))
        )
    )


def promises(group: Group) -> tuple[shown.Facts | None, shown.Facts | None]:
    """(central, local) mechanism of the run of the group that promises least."""
    return shown.worst(run.privacy for run in group.runs), shown.worst(run.local_privacy for run in group.runs)


def _rounds(group: Group) -> str:
    counts = sorted({run.num_rounds for run in group.runs})
    text = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
    return text if len(group.finished) == len(group.runs) else f"{text} of {_planned(group)}"


def _planned(group: Group) -> str:
    return f"{group.runs[0].options.get('central_num_iterations', 0):,}"
