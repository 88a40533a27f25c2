"""Which options are shown: those that differ, where they have an effect."""

from __future__ import annotations

from typing import Any

from fedflair.report.data import Group, Run
from fedflair.report.differences import table


def group(name: str, *seeds: int, resolved: Any = None, **options: Any) -> Group:
    environment = () if resolved is None else ({"resolved": resolved},)
    runs = [
        Run(name, None, [], {"run": f"runs/{name}", "seed": seed, **options}, {}, {}, None, None, environment)
        for seed in seeds
    ]
    return Group(name, runs)


def test_only_options_that_differ_and_have_an_effect() -> None:
    private = {"central_privacy_mechanism": "gaussian_moments_accountant", "central_delta": 1e-9, "cohort_size": 20}
    rows = [
        group("open", 0, central_delta=1e-5, cohort_size=20, workers=2),
        group("private", 0, **private, workers=3),
        group("own", 0, **private | {"population": None, "central_delta": 1e-3}, resolved={"population": 3200}),
    ]
    headings, cells = table(rows)
    # Where and how fast a run went is not what it is; a delta without a mechanism is none.
    assert headings == ["run", "central_privacy_mechanism", "central_delta"]
    assert cells[0] == ["open", "none", "–"]
    assert cells[2] == ["own", "gaussian_moments_accountant", "0.001"]
    rows[1].runs[0].options["population"] = 10_000_000  # type: ignore[index]
    headings, cells = table(rows)
    assert [row[headings.index("population")] for row in cells] == ["–", "10,000,000", "3,200"]


def test_seeds_are_one_option_of_a_group() -> None:
    headings, _ = table([group("a", 0, 1, learning_rate=1.0), group("b", 0, 1, learning_rate=2.0)])
    assert headings == ["run", "learning_rate"]
    headings, cells = table([group("a", 0, 1), group("b", 2)])
    assert headings == ["run", "seed"]
    assert cells == [["a", "0, 1"], ["b", "2"]]


def test_options_of_an_earlier_version_are_taken_as_they_are() -> None:
    headings, cells = table([group("a", 0, run_note="<b>"), group("b", 0, run_note="c", cohort_size=-1)])
    assert headings == ["run", "cohort_size", "run_note"] or headings == ["run", "run_note"]
    assert cells[0][-1] == "<b>"
