"""What one sees in the scores, in words, and no more than they bear.

Two rows are told apart where their scores on test differ by more than twice the standard error of that difference: over
the users of test, of whom each of 20 groups was left out in turn, and over seeds where both rows have several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

import numpy as np

from fedflair.metrics.left_out import standard_error
from fedflair.privacy.accounting import shown
from fedflair.report.data import Group
from fedflair.report.differences import Options, differing, same_store
from fedflair.sweep.results import words_of

RULE = (
    "±: twice the standard error of the difference, over the users of test and, where both rows have several, over "
    "seeds. A difference within it is no difference seen; one beyond it says nothing of other seeds where there is one "
    "seed each."
)
MOST_SENTENCES = 8
# So many other options may differ between a private row and the one without privacy that it is held against.
_MOST_FURTHER = 4
_USERS = frozenset({"dataset", "mean_datapoints_per_user", "datapoints_per_user_distribution"})
_PRIVACY = frozenset(
    {
        "central_privacy_mechanism", "central_epsilon", "central_delta", "central_privacy_clipping_bound",
        "central_order", "population", "noise_cohort_size", "accountant", "min_separation", "adaptive_clipping",
        "adaptive_clipping_quantile", "adaptive_clipping_learning_rate", "adaptive_clipping_noise_std",
        "local_privacy_mechanism", "local_epsilon", "local_delta", "local_privacy_clipping_bound", "local_order",
        "allow_large_delta", "noise_from_seed", "cohort_sampling",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The mean score of one group on test against that of another.

    error: the standard error of their difference; None where the runs do not say. num_seeds: the fewer of the two.
    """

    score: float
    other: float
    error: float | None
    num_seeds: int

    @property
    def difference(self) -> float:
        return self.score - self.other

    @property
    def told_apart(self) -> bool:
        return self.error is not None and abs(self.difference) > 2 * self.error


def compare(group: Group, other: Group, metric: str) -> Comparison | None:
    """None where one of them has no score yet, or they were scored on different images."""
    scores, others = group.test(metric), other.test(metric)
    if not scores or not others or not same_store(group, other):
        return None
    errors = [_over_users(group, other, metric)]
    if min(len(scores), len(others)) > 1:
        errors.append(math.sqrt(sum(variance(values) / len(values) for values in (scores, others))))
    known = [error for error in errors if error is not None]
    error = math.hypot(*known) if known else None
    return Comparison(fmean(scores), fmean(others), error, min(len(scores), len(others)))


def _over_users(group: Group, other: Group, metric: str) -> float | None:
    """The standard error of the difference of the two means over the users of test."""
    means = []
    for one in (group, other):
        found = [run.left_out.get(metric, ()) for run in one.finished]
        if len({len(values) for values in found}) != 1:
            return None
        means.append(np.mean(np.array(found, dtype=np.float64), axis=0))
    return standard_error((means[0] - means[1]).tolist()) if means[0].shape == means[1].shape else None


def verdict(comparison: Comparison) -> str:
    """How the difference is to be taken."""
    gap = comparison.difference
    size = f"{abs(gap):.3f} {'less' if gap < 0 else 'more'}"
    seeds = "one seed each" if comparison.num_seeds == 1 else f"{comparison.num_seeds} seeds or more each"
    if comparison.error is None:
        return f"{size}; whether that is more than chance cannot be told from what these runs kept"
    bound = f"± {2 * comparison.error:.3f}, {seeds}"
    if not comparison.told_apart:
        return f"{size}, within {bound}: no difference is seen"
    return f"{size}, beyond {bound}" + ("; another seed may differ" if comparison.num_seeds == 1 else "")


@dataclass(frozen=True)
class Findings:
    """headline: the whole in a line. sentences: what one sees, the first lines of the report."""

    headline: str
    sentences: Sequence[str]


def findings(groups: Sequence[Group]) -> Findings:
    """Natural against IID users, each private row against one without privacy; of other rows which is highest."""
    metric = metric_of(groups)
    options = {id(group): Options(group) for group in groups}
    users: list[str] = []
    kinds: dict[bool, list[tuple[Group, Comparison]]] = {False: [], True: []}
    sentences = []
    for natural, iid in _pairs_of_users(groups, options):
        compared = compare(natural, iid, metric)
        if compared is not None:
            users = users or [_users_title(compared, metric)]
            sentences.append(
                f"Natural users ({natural.name}) against IID users ({iid.name}): {words_of(metric)} on test "
                f"{compared.score:.3f} against {compared.other:.3f}, {verdict(compared)}."
            )
    private = [group for group in groups if is_private(group) and group.test(metric)]
    for group in private[:MOST_SENTENCES]:
        twin = _without_privacy(group, groups, options)
        compared = None if twin is None else compare(group, twin, metric)
        sentences.append(_private_sentence(group, twin, compared, options, metric))
        if compared is not None:
            kinds[_simulated(group)].append((group, compared))
    if len(private) > MOST_SENTENCES:
        sentences.append(f"{len(private) - MOST_SENTENCES} more private rows are in the table.")
    if not sentences:
        return _highest(groups, metric)
    headline = "; ".join([*_privacy_title(kinds[False], metric), *users, *_privacy_title(kinds[True], metric)])
    return Findings(headline[:1].upper() + headline[1:] or _default(groups, metric), sentences)


def rule_of(found: Findings) -> list[str]:
    """What ± means, where there is one."""
    return [RULE] if any("±" in sentence for sentence in found.sentences) else []


def metric_of(groups: Sequence[Group]) -> str:
    """What the runs' best models were chosen by; macro AP where they were chosen differently."""
    named = {str(run.options.get("best_metric", "macro_ap")) for group in groups for run in group.runs}
    found = named.pop() if len(named) == 1 else "macro_ap"
    return found if found in ("macro_ap", "micro_ap") else "macro_ap"


def is_private(group: Group) -> bool:
    return any(run.is_private for run in group.runs)


def _pairs_of_users(groups: Sequence[Group], options: dict[int, Options]) -> list[tuple[Group, Group]]:
    """(natural, IID) groups that differ in their users only; those without privacy where there are any."""
    found = []
    for natural in groups:
        for iid in groups:
            names = [options[id(group)].values.get("dataset") for group in (natural, iid)]
            if names == ["flair", "flair_iid"]:
                differ = differing([options[id(natural)], options[id(iid)]])
                found += [(natural, iid)] if _USERS.issuperset(differ) else []
    open_ones = [pair for pair in found if not any(map(is_private, pair))]
    return open_ones or found


def _without_privacy(group: Group, groups: Sequence[Group], options: dict[int, Options]) -> Group | None:
    """The group without privacy that is most like this one: of the same users and, but for a few options, the same."""
    best, fewest = None, _MOST_FURTHER + 1
    for other in groups:
        if is_private(other) or not other.finished:
            continue
        further = _further(group, other, options)
        if not _USERS.intersection(further) and len(further) < fewest:
            best, fewest = other, len(further)
    return best


def _further(group: Group, other: Group, options: dict[int, Options]) -> list[str]:
    """Options beside those of privacy in which they differ."""
    names = differing([options[id(group)], options[id(other)]])
    return [name for name in names if name not in _PRIVACY and name != "seed"]


def _simulated(group: Group) -> bool:
    facts = shown.worst(run.privacy for run in group.runs)
    return facts is None or bool(facts.get("simulated") or facts.get("noise_from_seed"))


def _private_sentence(
    group: Group, twin: Group | None, compared: Comparison | None, options: dict[int, Options], metric: str
) -> str:
    score = f"{words_of(metric)} on test {fmean(group.test(metric)):.3f}"
    if twin is not None and compared is not None:
        score += f" against {compared.other:.3f} without privacy ({twin.name}), {verdict(compared)}"
        if further := _further(group, twin, options):
            score += f". They also differ in {', '.join(further)}"
    known = group.values(lambda run: (run.summary or {}).get("test", {}).get("mean_prevalence"))
    nothing = f" Knowing nothing gives {fmean(known):.3f}." if known and metric == "macro_ap" else ""
    lengths = group.values(lambda run: run.noise_over_bound)
    noise = f"Noise {max(lengths):.2g} times as long as the clipping bound" if lengths else "Noise"
    return f"{group.name}: {noise} for {_promise(group)}. {score[:1].upper()}{score[1:]}.{nothing}"


def _promise(group: Group) -> str:
    facts: Any = shown.worst(run.privacy for run in group.runs)
    if facts is None:
        local = shown.cell(None, shown.worst(run.local_privacy for run in group.runs))
        return f"epsilon {local.removeprefix('local ')} towards the server, drawn by each client"
    whole, own = shown.figures(facts)
    users = f"the {facts['users']:,} " if isinstance(facts.get("users"), int) else "the "
    who = f"{users}{'artificial ' if facts.get('artificial_users') else ''}users trained on"
    nobody = ", which protects nobody" if own > shown.PROTECTS_NOBODY else ""
    if facts.get("noise_from_seed"):
        return f"epsilon infinite, as it follows from a public seed{nobody}"
    if facts.get("simulated"):
        of = f" of {facts['population']:,} users" if isinstance(facts.get("population"), int) else ""
        return f"epsilon {shown.show(whole)} in a simulated deployment{of}; for {who} it is {shown.show(own)}{nobody}"
    return f"epsilon {shown.show(own)} for {who}{nobody}"


def _users_title(compared: Comparison, metric: str) -> str:
    if not compared.told_apart:
        return "between natural and IID users no difference is seen"
    way = "above" if compared.difference > 0 else "below"
    return f"natural users are {abs(compared.difference):.2f} {words_of(metric)} {way} IID ones"


def _privacy_title(rows: Sequence[tuple[Group, Comparison]], metric: str) -> list[str]:
    """Of rows of one kind the first whose cost can be told; that none can, where that is so; nothing of no rows."""
    if not rows:
        return []
    who = "the noise of a simulated deployment" if _simulated(rows[0][0]) else "a promise to the users trained on"
    told = [(group, compared) for group, compared in rows if compared.told_apart]
    if not told:
        return [f"what {who} costs cannot be seen"]
    group, compared = told[0]
    name = f" ({group.name})" if len(rows) > 1 else ""
    return [f"with {who}{name} {words_of(metric)} is {compared.score:.2f}, without privacy {compared.other:.2f}"]


def _highest(groups: Sequence[Group], metric: str) -> Findings:
    """Which of the groups is highest on test, and which of the others cannot be told from it."""
    ranked = sorted((g for g in groups if g.test(metric)), key=lambda group: -fmean(group.test(metric)))
    if len(ranked) < 2:
        return Findings(_default(groups, metric), [])
    first = ranked[0]
    found = {group.name: compare(group, first, metric) for group in ranked[1:]}
    title = f"{first.name} has the highest {words_of(metric)} on test, {fmean(first.test(metric)):.3f}"
    close = sum(one is None or not one.told_apart for one in found.values())
    if close:
        title += f"; {close} of the {len(found)} others cannot be told from it"
    told = [f"{name} against {first.name}: {verdict(one)}." for name, one in found.items() if one is not None]
    if None in found.values():
        told.append("Some are not compared, as they are not known to have been scored on the same photographs.")
    return Findings(title, told if len(told) <= MOST_SENTENCES else [*told[: MOST_SENTENCES - 1], "And so on."])


def _default(groups: Sequence[Group], metric: str) -> str:
    found = [(group.name, fmean(group.test(metric))) for group in groups if group.test(metric)]
    if len(found) == 1:
        return f"{found[0][0]}: {words_of(metric)} {found[0][1]:.3f} on test"
    return f"{len(groups)} runs compared" if len(groups) > 1 else f"{groups[0].name}: has not ended"
