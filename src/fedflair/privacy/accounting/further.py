"""What else a question comes to: other deltas, other notions of privacy, several clients, several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon as epsilon_of
from fedflair.privacy.accounting.accountants import resolve_accountant
from fedflair.privacy.accounting.events import Accountant, PrivacyEvent
from fedflair.privacy.accounting.question import Question
from fedflair.privacy.accounting.shown import finite, show
from fedflair.privacy.accounting.together import epsilon_together, gaussian_mu, selection_epsilon, zcdp
from fedflair.privacy.accounting.trade_off import group_epsilon

_MOST_CLIENTS = 10_000
_MOST_RUNS = 100_000


def further(
    question: Question,
    noise_multiplier: float,
    *,
    deltas: Sequence[float],
    group_size: int | None,
    runs: int | None,
    selected_from: float | None,
    drawn_from: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Facts by name, of what was asked for; a number that is None is infinite, and a fact without a proof.

    drawn_from: the sizes of a cohort and of the population, where they are known, which helps groups of clients.
    Raises ConfigError for what is impossible, PrivacyError where no accountant has a bound.
    """
    event, delta = question.event(noise_multiplier), question.delta
    facts: dict[str, Any] = {"gdp_mu": _mu(event), "zcdp_rho": zcdp(event)}
    if deltas:
        facts["deltas"] = [_at(event, question, each) for each in deltas]
    if group_size is not None:
        most = min(_MOST_CLIENTS, _MOST_CLIENTS if drawn_from is None else drawn_from[1])
        _require(1 <= group_size <= most, "group_size", group_size, f"in 1 .. {most:,}")
        found = group_epsilon(event, group_size, delta, apart=question.min_separation > 1, drawn_from=drawn_from)
        facts["group"] = {"size": group_size, "epsilon": finite(found)}
    if runs is not None:
        _require(1 <= runs <= _MOST_RUNS, "runs", runs, f"in 1 .. {_MOST_RUNS:,}")
        facts["together"] = {"runs": runs, "epsilon": finite(epsilon_together([event] * runs, delta))}
    if selected_from is not None:
        _require(1 < selected_from <= _MOST_RUNS, "selected_from", selected_from, f"above 1, at most {_MOST_RUNS:,}")
        facts["selected"] = {"expected_runs": selected_from, "epsilon": _selected(event, selected_from, delta)}
    return facts


def rows_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """As they are read, a heading and words each. facts: of the question too."""
    is_drawn = facts["sampling"] != "rotating" and facts["sampling_rate"] * facts["min_separation"] < 1
    alone = ", for which sampling gains nothing" if is_drawn else ""
    rows = [(f"at delta {each['delta']:g}", f"epsilon {show(each['epsilon'])}") for each in facts.get("deltas", ())]
    if facts["zcdp_rho"] is not None:
        rows.append(("zCDP", f"rho {show(facts['zcdp_rho'])}{alone if facts['gdp_mu'] is not None else ''}"))
    if facts["gdp_mu"] is not None:
        rows.append(("Gaussian DP", f"mu {show(facts['gdp_mu'])}{alone}"))
    if group := facts.get("group"):
        done = "replaced" if facts["neighbouring"] == "replace_one" else "zeroed out"
        rows.append(
            (f"group of {group['size']:,}", f"epsilon {show(group['epsilon'])} for as many clients {done} at once")
        )
    if together := facts.get("together"):
        rows.append((f"{together['runs']:,} such runs", f"epsilon {show(together['epsilon'])}, all of them shown"))
    if selected := facts.get("selected"):
        told = "no bound is known" if selected["epsilon"] is None else f"epsilon {show(selected['epsilon'])}"
        rows.append(
            ("best run alone", f"{told}, of a secret geometric number of {selected['expected_runs']:g} expected")
        )
    return rows


def _mu(event: PrivacyEvent) -> float | None:
    return gaussian_mu(event) if event.noise == "gaussian" else None


def _at(event: PrivacyEvent, question: Question, delta: float) -> dict[str, Any]:
    _require(0 < delta < 1, "deltas", delta, "in (0, 1)")
    used: Accountant = resolve_accountant(event, question.accountant, delta)
    return {"delta": delta, "epsilon": finite(epsilon_of(event, delta, question.accountant)), "accountant": used}


def _selected(event: PrivacyEvent, expected_runs: float, delta: float) -> float | None:
    try:
        return finite(selection_epsilon(event, expected_runs, delta))
    except PrivacyError:
        return None


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {value} is impossible; it must be {expected}")
