"""The table of scores."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fedflair.privacy.accounting.shown import LEGEND
from fedflair.privacy.ledger.record import FILE_NAME
from fedflair.report.data import read_groups, summaries
from fedflair.report.table import HEADINGS, NOISE, NOISE_LEGEND, cells, notes, promised
from fedflair.runs.tensors import save_tensors
from tests.privacy.ledgers import finished_run
from tests.report.folders import write_run


def test_cells_by_hand(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61)])
    assert cells(group) == ("a", "2", "-", "-", "0.610", "0.500", "0.400", "0.300", "0.200", "1.5")


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
    assert cells(group)[2].startswith("2 * (run ")
    assert cells(group)[2].endswith(", local infinite †")
    told = [*promised([group]), *notes([group])]
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
    assert cells(group)[2].startswith("infinite")
    assert any("nothing is known of its epsilon" in sentence for sentence in promised([group]))


def test_an_infinite_epsilon_is_no_dash(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61, {"epsilon": None, "delta": 1e-5, "words": "no noise"})])
    assert cells(group)[2] == "infinite"
    (group,) = read_groups([write_run(tmp_path / "b", 0.61, {"epsilon": None, "delta": None, "words": "only clips"})])
    assert cells(group)[2] == "-"


def test_every_private_row_has_the_noise_over_the_bound(tmp_path: Path) -> None:
    """sqrt(10,000) * 0.5 / (2 * 25); Laplace's is 10,000 * 0.5 / sqrt(2) over it."""
    facts = {"epsilon": 2.0, "delta": 1e-5, "noise_std": 0.5, "clipping_bound": 2.0, "cohort_size": 25, "order": 2.0}
    run = write_run(tmp_path / "a", 0.61, facts)
    summary = json.loads((run / "summary.json").read_text()) | {"num_parameters": 10_000}
    (run / "summary.json").write_text(json.dumps(summary))
    (group,) = read_groups([run])
    assert HEADINGS[3] == NOISE and cells(group)[3] == "1"
    assert NOISE_LEGEND in notes([group])
    (run / "summary.json").write_text(json.dumps({**summary, "privacy": {**facts, "order": 1.0}}))
    assert cells(read_groups([run])[0])[3] == "71"
    # What the rounds say comes first: the run says the same before the first one.
    rows = [{"round": 1, "privacy/noise_std": 0.3, "privacy/clipping_bound": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "summary.json").write_text(json.dumps(summary))
    assert cells(read_groups([run])[0])[3] == "10"
    # A summary of an earlier version has no number of parameters; a saved model does.
    (run / "summary.json").write_text(json.dumps({**summary, "num_parameters": None}))
    assert cells(read_groups([run])[0])[3] == "?"
    save_tensors(run / "checkpoints" / "best.safetensors", {"parameters": torch.zeros(2500)}, {})
    assert cells(read_groups([run])[0])[3] == "5"
