"""The table of scores."""

from __future__ import annotations

from pathlib import Path

from fedflair.privacy.accounting.shown import LEGEND
from fedflair.privacy.ledger.record import FILE_NAME
from fedflair.report.data import read_groups, summaries
from fedflair.report.table import cells, notes
from tests.privacy.ledgers import finished_run
from tests.report.folders import write_run


def test_cells_by_hand(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61)])
    assert cells(group) == ("a", "flair", "2", "-", "0.610", "0.500", "0.400", "0.300", "0.200", "1.5")


def test_a_private_run_that_has_not_ended_keeps_its_epsilon_and_its_caveats(tmp_path: Path) -> None:
    """Its row had a dash for an epsilon, and nothing was said of it."""
    run = write_run(tmp_path / "a", 0.61)
    (run / "summary.json").unlink()
    with (run / "config.yaml").open("a") as file:
        file.write("central_privacy_mechanism: gaussian_moments_accountant\ncentral_delta: 0.0001\n")
        file.write(
            "local_privacy_mechanism: laplace\nlocal_epsilon: 3.0\nlocal_delta: 1.0e-05\nnoise_from_seed: true\n"
        )
    ledger = (finished_run(tmp_path / "private") / FILE_NAME).read_text()
    (run / FILE_NAME).write_text(ledger)
    (group,) = read_groups([run])
    assert cells(group)[3].startswith("2 * (run ")
    assert cells(group)[3].endswith(", local infinite †")
    told = notes([group])
    assert any(
        sentence.startswith("* a: Simulated deployment of 400 users: epsilon 2 at delta 0.0001 for one user's")
        for sentence in told
    )
    assert {LEGEND["*"], LEGEND["†"]} <= set(told)
    assert any(sentence.startswith("Not covered by epsilon: ") for sentence in told)
    assert summaries([group])[0]["privacy"]["epsilon"] <= 2.0
    # Without a ledger that can be read, nothing is known of it, which is not the same as no promise.
    (run / FILE_NAME).unlink()
    (group,) = read_groups([run])
    assert cells(group)[3].startswith("infinite")
    assert any("nothing is known of its epsilon" in sentence for sentence in notes([group]))


def test_an_infinite_epsilon_is_no_dash(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61, {"epsilon": None, "delta": 1e-5, "words": "no noise"})])
    assert cells(group)[3] == "infinite"
    (group,) = read_groups([write_run(tmp_path / "b", 0.61, {"epsilon": None, "delta": None, "words": "only clips"})])
    assert cells(group)[3] == "-"
