"""How an epsilon is shown to people: the one place that turns one into text, rounded up, with its marks and words.

What a mechanism says of itself is a mapping of facts (``mechanisms/deployment.py``, ``mechanisms/local.py``), which
summaries and ledgers keep. Four marks go with an epsilon: ``*`` it is that of a simulated deployment, and the run's
own stands beside it; ``†`` the run's own is infinite, as its noise follows from a public seed; ``‡`` it is promised to
an artificial user and not to a person; ``§`` it does not cover the model that the run starts from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

from fedflair.privacy.accounting.accountants import SMALLEST_PLD_DELTA

Facts = Mapping[str, Any]

SEEDED = "The noise is drawn from the run's seed: this is a simulation and protects nobody."
LEGEND = {
    "*": "* epsilon of a simulated deployment; in brackets that of the run itself, the only one that holds for the "
    "people whose photos were used.",
    "†": "† whatever the noise was calibrated for, it is drawn from the run's seed, which its configuration shows: the "
    "run protects nobody.",
    "§": "§ of what the run adds: it starts from a model that was trained on the same users, which it does not cover.",
    "‡": "‡ for an artificial user, a random group of images; a person has images in many of them and a larger one.",
}
# The fact that an epsilon leaves out what the run starts from.
UNCOVERED_START = "start_not_covered"
# Above it a guess of one bit about somebody is right with probability 1 - 4e-44 at most: nothing is left of a promise.
PROTECTS_NOBODY = 100.0
_UP = Context(prec=4, rounding=ROUND_CEILING)


def show(value: float | None) -> str:
    """An epsilon for reading: 4 digits, rounded up; ``infinite`` where nothing is promised."""
    if value is None or not math.isfinite(value):
        return "infinite"
    # Its shortest digits are what was written or meant: 0.1, and not the binary number just above it.
    return f"{float(_UP.create_decimal(Decimal(repr(float(value))))):.4g}"


def finite(value: float) -> float | None:
    """An epsilon as JSON has it: None is infinite."""
    return value if math.isfinite(value) else None


def promises(facts: Facts | None) -> bool:
    """Whether a mechanism promises an epsilon at all: one that only clips does not."""
    return facts is not None and any(facts.get(name) is not None for name in ("delta", "epsilon"))


def figures(facts: Facts) -> tuple[float, float]:
    """(epsilon, epsilon of the run itself) of a mechanism that promises one; inf where nothing holds."""
    whole = _number(facts.get("epsilon"))
    own = _number(facts.get("run_epsilon")) if facts.get("simulated") else whole
    if facts.get("noise_from_seed"):
        own = math.inf
    return (whole if facts.get("simulated") else own), own


def worst(many: Iterable[Facts | None]) -> Facts | None:
    """Of several runs' facts those with the largest epsilon; None where none of them promises any."""
    return max((facts for facts in many if facts is not None and promises(facts)), key=_badness, default=None)


def cell(central: Facts | None, local: Facts | None = None) -> str:
    """A run's epsilon where there is room for a few words, with its marks; ``-`` where no promise was asked for."""
    parts = []
    if central is not None and promises(central):
        (whole, own), marks = figures(central), marks_of(central)
        if "*" in marks:
            brackets = f"(run {show(own)}{' †' if '†' in marks else ''})"
            parts.append(f"{show(whole)} {marks.replace('†', '')} {brackets}")
        else:
            parts.append(f"{show(own)} {marks}".rstrip())
    if local is not None and promises(local):
        planned = "epsilon" not in local
        value = _number(local.get("epsilon_per_release") if planned else local["epsilon"])
        told = "infinite †" if local.get("noise_from_seed") else f"{show(value)}{' a round' if planned else ''}"
        parts.append(f"local {told}")
    return ", ".join(parts) or "-"


def marks_of(*many: Facts | None) -> str:
    """The marks that go with the epsilons of these mechanisms, each once."""
    told = [facts for facts in many if facts is not None and promises(facts)]
    return "".join(mark for mark, field in _MARKED.items() if any(facts.get(field) for facts in told))


def legend(*many: Facts | None) -> list[str]:
    """What the marks in the cells of these mechanisms mean, a sentence each."""
    return [LEGEND[mark] for mark in marks_of(*many)]


def sentences(facts: Facts) -> str:
    """All that is to be said of a central mechanism's epsilon: what it is, of whom, against what, and its caveats."""
    promise = (
        f"epsilon {show(facts['epsilon'])} at delta {facts['delta']:g} for {_relation(facts)}, over "
        f"{facts['rounds']:,} rounds with {facts['sampling']} cohorts of {facts['noise_cohort_size']:,} of "
        f"{facts['population']:,} ({facts['mechanism']}, noise multiplier {facts['noise_multiplier']:.6g}, "
        f"{facts['accountant']} accountant)"
    )
    lines = [SEEDED] if facts["noise_from_seed"] else []
    if facts["simulated"]:
        own = "infinite" if facts["noise_from_seed"] else f"{show(facts['run_epsilon'])} at the same delta"
        if _number(facts["run_epsilon"]) > PROTECTS_NOBODY and not facts["noise_from_seed"]:
            own += ", which protects nobody"
        lines += [
            f"Simulated deployment of {facts['population']:,} users: {promise}.",
            f"This run itself, with cohorts of {facts['cohort_size']:,} of {facts['users']:,} and the noise scaled "
            f"down to them: epsilon {own}.",
        ]
    elif facts["noise_from_seed"]:
        lines.append(f"Epsilon of this run: infinite. With noise that nobody knows: {promise}.")
    else:
        lines.append(f"Privacy: {promise}.")
    return " ".join([*lines, *_caveats(facts)])


def words(facts: Facts) -> str:
    """What a mechanism says of itself in a summary, or of a run without one as far as its ledger's facts go."""
    if isinstance(facts.get("words"), str):
        return str(facts["words"])
    try:
        return sentences(facts)
    except (KeyError, TypeError, ValueError):
        # A ledger of an earlier version, or one that somebody wrote.
        return f"Privacy: {'; '.join(of_run(facts))}."


def of_run(facts: Facts) -> list[str]:
    """The promise of a run or its ledger, a line each: of what, and how much."""
    whole, own = figures(facts)
    at = f"at delta {_number(facts.get('delta')):g}"
    lines = [f"epsilon of the simulated deployment: {show(whole)} {at}"] if facts.get("simulated") else []
    whose = "run itself" if lines else "run"
    lines.append(f"epsilon of the {whose}: {show(own)} {at}")
    if facts.get("noise_from_seed"):
        lines.append(SEEDED)
    if facts.get("artificial_users"):
        lines.append(f"That is {LEGEND['‡'].removeprefix('‡ ')}")
    return lines


def noise_sentence(length: float, num_parameters: int) -> str:
    """What the noise is to one client's contribution. length: of a round's noise, in clipping bounds."""
    return (
        f"Noise on a round's mean update: {length:.3g} times as long as the clipping bound "
        f"({num_parameters:,} parameters)."
    )


def _caveats(facts: Facts) -> list[str]:
    lines = [f"The number of users, {facts['users']:,} here, is public: rate and noise follow from it."]
    if facts["min_separation"] > 1:
        lines.append(f"No user is in two cohorts within {facts['min_separation']} rounds.")
    if facts["sampling"] == "rotating":
        lines.append("Who is in a cohort is no secret: nothing is gained from sampling.")
    if facts["epsilon_per_round"] is not None:
        one = show(facts["epsilon_per_round"])
        lines.append(f"The noise is that of one release with epsilon {one}, used in every round.")
    if facts["accountant"] == "rdp" and facts["sampling"] == "poisson" and facts["delta"] < SMALLEST_PLD_DELTA:
        lines.append(f"Below delta {SMALLEST_PLD_DELTA:g} pld is not exact: accounted by rdp.")
    delta, most = facts["delta"], max(facts["population"], facts["users"])
    if delta >= 1 / most:
        lines.append(
            f"Delta is not below 1/{most:,}: a weak promise, for comparison only, which giving {delta * most:,.0f} of "
            "the users away whole would keep."
        )
    if facts.get("person") is not None:
        lines.append(_person(facts["person"], str(facts["mechanism"]), seeded=facts["noise_from_seed"]))
    return lines


def _person(person: Facts, mechanism: str, *, seeded: bool) -> str:
    """Of the people behind artificial users. person: see ``mechanisms/deployment.py``."""
    mean, most = person["mean_images"], person["most_images"]
    who = "A person's images are in many artificial users"
    if not person["accounted"]:
        return f"{who}: a person's own epsilon is larger, and not computed, as no accountant bounds it for {mechanism}."
    told = [math.inf if seeded else _number(person[name]) for name in ("mean_epsilon", "most_epsilon")]
    return (
        f"{who}: left out of all of theirs, somebody with the mean of {mean:g} images has epsilon {show(told[0])} in "
        f"this run, somebody with the most, {most:,}, {show(told[1])}."
    )


def _relation(facts: Facts) -> str:
    who = "artificial user's (a random group of images, not a person)" if facts["artificial_users"] else "user's"
    other = "another's" if facts["neighbouring"] == "replace_one" else "zero"
    return f"one {who} contribution replaced by {other} ({facts['neighbouring']})"


def _number(value: Any) -> float:
    """A figure of facts that a file may hold: what is no number promises nothing."""
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else math.inf


def _badness(facts: Facts) -> tuple[float, float]:
    whole, own = figures(facts)
    return own, whole


_MARKED = {"*": "simulated", "†": "noise_from_seed", "‡": "artificial_users", "§": UNCOVERED_START}
