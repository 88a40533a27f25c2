"""The privacy-utility curve: of tiny runs as they are, and of outcomes whose numbers are known by hand."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedflair.cli import run as run_command
from fedflair.config.train_config import TrainConfig
from fedflair.privacy.accounting.shown import LEGEND
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.sweep.curve import curve_csv, curve_of, table_of_curve
from fedflair.sweep.curve_files import FILES, write_curve
from fedflair.sweep.latex import escaped, latex_table, number
from fedflair.sweep.methods import methods_text
from fedflair.sweep.plan import Trial, plan_sweep, sweep_spec
from fedflair.sweep.results import Outcome
from fedflair.training.train import train
from tests.privacy.conftest import accounting_cache, shared_cache
from tests.small_runs import small_config

__all__ = ["accounting_cache", "shared_cache"]

FACTS = {
    "mechanism": "gaussian_moments_accountant",
    "epsilon": 2.0,
    "run_epsilon": 1.63412e6,
    "simulated": True,
    "delta": 1e-5,
    "order": 2.0,
    "noise_multiplier": 0.55,
    "clipping_bound": 0.1,
    "accountant": "pld",
    "neighbouring": "zero_out",
    "sampling": "poisson",
    "sampling_rate": 0.0005,
    "run_sampling_rate": 0.2,
    "cohort_size": 10,
    "noise_cohort_size": 5000,
    "population": 10_000_000,
    "users": 50,
    "rounds": 150,
    "min_separation": 1,
    "epsilon_per_round": None,
    "noise_from_seed": False,
    "artificial_users": False,
}
BUDGETS: list[Any] = [0.5, 2.0, "none"]


def trials(curves: tuple[str, ...] = ("",), seeds: int = 2) -> list[Trial]:
    return [
        Trial(
            f"{name} {asked}",
            name or None,
            {},
            seed,
            f"{name}{asked}-seed{seed}",
            TrainConfig.of(seed=seed),
            asked,
            name,
        )
        for seed in range(seeds)
        for name in curves
        for asked in reversed(BUDGETS)
    ]


def outcome(trial: Trial, **facts: Any) -> Outcome:
    """Test is 0.5 without a mechanism and less with one; the second seed has 0.1 more."""
    private = None if trial.asked == "none" else {**FACTS, "epsilon": trial.asked, **facts}
    score = {"none": 0.5, 2.0: 0.4, 0.5: 0.2}[trial.asked] + 0.1 * trial.seed  # type: ignore[index]
    return Outcome("done", {"macro_ap": score + 0.05}, {"macro_ap": score}, 60.0, private)


def test_points_stand_by_budget_with_both_epsilons_and_the_deviation_over_seeds(tmp_path: Path) -> None:
    ran = trials()
    curve = curve_of(ran, [outcome(trial) for trial in ran], tmp_path)
    assert [point.asked for point in curve.points] == BUDGETS
    headings, rows = table_of_curve(curve)
    assert headings == ["epsilon", "seeds", "noise / bound", "test macro AP", "val macro AP"]
    assert rows[1] == ["2 * (run 1.635e+06)", "2/2", "-", "0.450 ± 0.071", "0.500 ± 0.071"]
    assert rows[2] == ["none", "2/2", "-", "0.550 ± 0.071", "0.600 ± 0.071"]
    table = list(csv.DictReader(curve_csv(curve).splitlines()))
    assert [row["asked"] for row in table] == ["0.5", "2.0", "none"]
    row = table[1]
    assert (row["epsilon"], row["run_epsilon"], row["epsilon_marks"]) == ("2", "1.635e+06", "*")
    assert (float(row["test_mean"]), float(row["test_std"])) == (pytest.approx(0.45), pytest.approx(0.005**0.5))
    assert (float(row["test_min"]), float(row["test_max"])) == (0.4, 0.5)
    assert (table[2]["epsilon"], table[2]["run_epsilon"], table[2]["mechanism"]) == ("", "", "none")


def test_the_paragraph_has_what_a_reviewer_asks_for(tmp_path: Path) -> None:
    ran = trials()
    text = methods_text(curve_of(ran, [outcome(trial) for trial in ran], tmp_path))
    for told in (
        "with fedavg",
        "for 5,000 rounds",
        "clipped to an L2 norm of at most 0.1",
        "the mechanism gaussian_moments_accountant",
        "a user's whole contribution as its unit, replaced by zero, the number of users being public (zero-out",
        "all 150 rounds are accounted together (pld accountant)",
        "Epsilon 0.5 and 2 at delta 1e-05 is that of a simulated deployment with a population of 10,000,000 and "
        "cohorts of 5,000 drawn by Poisson sampling (sampling rate 0.0005)",
        "cohorts of 10 of 50 users (sampling rate 0.2)",
        "the only one that holds for the people whose photographs were used, is 1.635e+06 at the same delta",
        "Delta is not below 1/10,000,000",
        "The noise multiplier (standard deviation over clipping bound) is 0.55;",
        "as a mean over seeds 0 and 1, with the sample standard deviation",
        "The sweep has 4 private runs on the same users; no option but the budget was varied in it.",
        "[State how the options were chosen",
    ):
        assert told in text, told
    own = methods_text(curve_of(ran, [outcome(trial, simulated=False, population=50) for trial in ran], tmp_path))
    assert "simulated" not in own
    assert "Epsilon is 0.5 and 2 at delta 1e-05, with cohorts of 10 of a population of 50 users, drawn by" in own
    seeded = methods_text(curve_of(ran, [outcome(trial, noise_from_seed=True) for trial in ran], tmp_path))
    assert "own epsilon, the only one that holds for the people whose photographs were used, is infinite" in seeded
    assert "this is a simulation and protects nobody" in seeded


def test_the_latex_table_has_both_epsilons_and_explains_its_marks(tmp_path: Path) -> None:
    ran = trials(("iid_50%", "natural"))
    lines = latex_table(curve_of(ran, [outcome(trial) for trial in ran], tmp_path)).splitlines()
    rows = [line.strip() for line in lines if line.endswith(r"\\") and "&" in line]
    assert rows[0].startswith(r"& $\varepsilon$ & $\varepsilon$ of the run & noise / bound & seeds & test macro AP")
    assert rows[2] == r"& $2^{*}$ & $1.635 \times 10^{6}$ & -- & 2 & $0.450 \pm 0.071$ & $0.500 \pm 0.071$ \\"
    assert rows[3] == r"& none & -- & -- & 2 & $0.550 \pm 0.071$ & $0.600 \pm 0.071$ \\"
    assert rows[1].startswith(r"iid\_50\% & $0.5^{*}$")
    assert rows[4].startswith(r"natural & $0.5^{*}$")
    # Every row has as many cells as the table has columns.
    assert {line.count(" & ") for line in rows[1:]} <= {5, 6}
    text = "\n".join(lines)
    assert r"\begin{tabular}{lrrrrrr}" in text
    assert [text.count(word) for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}")] == [1, 1, 1, 1]
    assert r"at $\delta=1 \times 10^{-5}$" in text
    assert escaped(LEGEND["*"]).split(";")[0] in text
    assert text.count("{") == text.count("}")
    assert escaped("a_b & 50% {x} \\ ~^<†") == (
        r"a\_b \& 50\% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}\textless{}${}^{\dagger}$"
    )
    assert (number("0.36"), number("1.6e+06")) == ("$0.36$", r"$1.6 \times 10^{6}$")


def test_what_is_not_done_is_said_and_not_drawn(tmp_path: Path) -> None:
    ran = trials()
    waiting = [Outcome("waiting") if trial.asked == 2.0 else outcome(trial) for trial in ran]
    curve = write_curve(tmp_path, ran, waiting)
    _, rows = table_of_curve(curve)
    assert rows[1] == ["2, not known yet", "0/2", "-", "-", "-"]
    assert "[2 runs are not done.]" in (tmp_path / "methods.txt").read_text()
    assert "($2$) & -- & -- & 0/2 & -- & --" in (tmp_path / "curve.tex").read_text()
    nothing = methods_text(curve_of(ran, [Outcome("waiting")] * len(ran), tmp_path))
    assert "[No private run is done yet" in nothing
    write_curve(tmp_path, ran, [Outcome("waiting")] * len(ran))


def test_infinite_epsilons_are_marked_everywhere(tmp_path: Path) -> None:
    ran = trials()
    curve = write_curve(tmp_path, ran, [outcome(trial, simulated=False, noise_from_seed=True) for trial in ran])
    assert table_of_curve(curve)[1][1][0] == "infinite †"
    assert r"$\infty^{\dagger}$" in (tmp_path / "curve.tex").read_text()
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert (rows[0]["epsilon"], rows[0]["run_epsilon"]) == ("infinite", "infinite")
    assert LEGEND["†"] in curve.notes


def test_a_plugins_mechanism_says_what_it_says(tmp_path: Path) -> None:
    ran = trials(seeds=1)
    private = {"epsilon": 2.0, "delta": 1e-6, "words": "It is as private as its author says."}
    outcomes = [Outcome("done", {"macro_ap": 0.1}, {"macro_ap": 0.1}, 1.0, private) for _ in ran]
    write_curve(tmp_path, ran, outcomes)
    assert "It is as private as its author says." in (tmp_path / "methods.txt").read_text()
    assert r"\delta=1 \times 10^{-6}" in (tmp_path / "curve.tex").read_text()


def test_hostile_names_are_spelled_out(tmp_path: Path) -> None:
    ran = trials(("=a\x1b[31m|b_\n$c$", "natural"))
    curve = write_curve(tmp_path, ran, [outcome(trial) for trial in ran])
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["curve"].startswith("'=a")
    assert r"=a\textbackslash{}x1b[31m|b\_\textbackslash{}n\$c\$ &" in (tmp_path / "curve.tex").read_text()
    assert "\x1b" not in (tmp_path / "curve.tex").read_text()
    assert len(curve.names) == 2


def test_a_sweep_over_epsilons_makes_the_curve_of_its_runs(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": "small_cnn", "central_num_iterations": 2}
    words = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in small_config(tiny_store, **options).as_dict().items()
        if name in ("data_path", "pretrained", "image_size", "cohort_size", "evaluation_frequency", "device", *options)
    ]
    private = ["--central_delta=0.01", "--population=90", "--noise_cohort_size=50", "--accountant=rdp"]
    output = tmp_path / "curve"
    given = {"epsilons": "8,none,2", "seeds": "1", "output": str(output)}
    typed = {word.split("=")[0][2:]: word.split("=")[1] for word in [*words, *private]}
    planned = plan_sweep(sweep_spec({"epsilons": given["epsilons"], "seeds": "1", **typed}))
    assert [trial.point for trial in planned] == [
        "central_epsilon=8",
        "central_privacy_mechanism=none",
        "central_epsilon=2",
    ]
    mechanisms = [trial.config.central_privacy.central_privacy_mechanism for trial in planned]
    assert mechanisms == ["gaussian_moments_accountant", "none", "gaussian_moments_accountant"]
    # They are there already, as a sweep that was stopped at its very end leaves them; the command finds them done.
    for trial in planned:
        train(trial.config.changed(run=output / "runs" / trial.name), quiet=True)
    line = [f"--{name}={value}" for name, value in given.items()]
    run_command(["sweep", *line, *words, *private])
    shown = capsys.readouterr()
    assert [text.split(":")[0] for text in shown.err.splitlines()] == [
        f"[{number}/3] {trial.point}, seed 0" for number, trial in enumerate(planned, 1)
    ]
    assert "started" not in shown.err
    assert (output / "methods.txt").read_text().strip() in shown.out
    assert LEGEND["*"] in shown.out

    rows = {row["asked"]: row for row in csv.DictReader((output / "curve.csv").read_text().splitlines())}
    assert list(rows) == ["2.0", "8.0", "none"]
    run = RunFolder(output / "runs" / "central_epsilon=8-seed0")
    summary, row = read_summary(run), read_rows(run)[0]
    assert float(rows["8.0"]["test_mean"]) == summary["test"]["macro_ap"]
    assert rows["8.0"]["epsilon_marks"] == "*"
    std, bound = row["privacy/noise_std"], row["privacy/clipping_bound"]
    num_parameters = load_tensors(run.best)[0]["parameters"].numel()
    assert float(rows["8.0"]["noise_over_bound"]) == pytest.approx(std * math.sqrt(num_parameters) / bound / 3)
    assert rows["none"]["noise_over_bound"] == ""
    assert re.search(r"│ 8 \* +│ 1/1 +│ [\d.]+ +│", shown.out) or "8 * (run" in shown.out

    # The same runs make the same files.
    before = {name: (output / name).read_bytes() for name in FILES}
    run_command(["sweep", *line, *words, *private, "--quiet", "--json"])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(json.loads(shown.out)["points"]) == 3
    assert {name: (output / name).read_bytes() for name in FILES} == before
    # The plot is a picture with more than paper in it.
    pixels = np.asarray(Image.open(output / "curve.png").convert("RGB"))
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
