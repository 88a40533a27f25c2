"""``fedflair audit``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.commands.audit import audit
from fedflair.errors import ConfigError, PrivacyError

SMALL = ["--rounds", "8", "--num_canaries", "300", "--seed", "1"]


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    audit(SMALL)
    shown = capsys.readouterr().out
    assert "accounted epsilon  2 at delta 1e-05" in shown
    assert "at the ratio of contributions to noise that was measured" in shown
    assert "verdict            nothing is wrong" in shown
    audit([*SMALL, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["accounted"] == pytest.approx(2.0, rel=1e-4)
    assert answer["findings"] == []
    assert answer["estimate_range"][0] <= answer["estimate"] <= answer["estimate_range"][1]
    assert answer["num_rounds"] == 8


def test_a_configuration_is_audited_as_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A simulated deployment in proportion: twice the cohort, of ten times as many users."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "data_path: nowhere.h5\ncohort_size: 200\nnoise_cohort_size: 400\npopulation: 4000\n"
        "central_privacy_mechanism: gaussian_moments_accountant\ncentral_num_iterations: 5000\n"
    )
    audit([*SMALL, "--args_config", str(file), "--json"])
    simulated = json.loads(capsys.readouterr().out)
    assert simulated["findings"] == []
    # Half of the noise that 2 of the deployment takes, where a client is in five times as many cohorts.
    assert simulated["accounted"] > 10
    audit([*SMALL, "--args_config", str(file), "--json", "--noise_cohort_size", "200"])
    assert 2 < json.loads(capsys.readouterr().out)["accounted"] < simulated["accounted"]


def test_a_separation_that_a_file_carries_is_no_separation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ``baseline``, whatever the mechanism: half of the clients are still drawn, and not a 96th."""
    file, accounted = tmp_path / "config.yaml", []
    for more in ("", "min_separation: 48\n"):
        file.write_text(f"central_privacy_mechanism: gaussian_moments_accountant\nnoise_cohort_size: 400\n{more}")
        audit(["--rounds", "2", "--num_canaries", "100", "--seed", "1", "--args_config", str(file), "--json"])
        accounted.append(json.loads(capsys.readouterr().out))
    assert accounted[0] == accounted[1]


@pytest.mark.parametrize(
    "options",
    [
        ["--cohort_sampling", "fixed"],
        ["--central_privacy_mechanism", "banded_matrix_factorization", "--min_separation", "4"],
        ["--central_privacy_mechanism", "banded_matrix_factorization", "--cohort_sampling", "b_min_separation"],
        ["--adaptive_clipping", "--dropout_rate", "0.2"],
        ["--local_privacy_mechanism", "laplace", "--rounds", "2"],
        ["--cohort_size", "100", "--noise_cohort_size", "1000"],
    ],
)
def test_what_training_can_run_is_audited(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    audit([*SMALL, *options])
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_canaries", "10"], "num_canaries: 10"),
        (["--sampling_rate", "2.0"], "sampling_rate: 2.0"),
        (["--rounds", "0"], "rounds: 0"),
        (["--min_separation", "3"], "min_separation: .*gaussian_moments_accountant does not enforce any"),
        (["--central_privacy_mechanism", "laplace", "--adaptive_clipping"], "adaptive_clipping: laplace has none"),
        (["--local_epsilon", "3"], "local_epsilon"),
        (["--adaptive_clipping_quantile", "0.3"], "adaptive_clipping_quantile: .*adaptive_clipping is off"),
        (["--top_k_fraction", "0.3"], "top_k_fraction: .*compression is none"),
        (["--clipping_groups", "kinds"], "clipping_groups: has no effect on this audit .adaptive_clipping is off"),
        (["--private_metrics_loss_bound", "2"], "private_metrics_loss_bound: has no effect on this audit"),
        (["--cohort_size", "30"], "cohort_size: has no effect on this audit"),
        (["--local_privacy_mechanism", "gaussian", "--central_epsilon", "1"], "central_epsilon"),
        (["--local_privacy_mechanism", "gaussian", "--sampling_rate", "1"], "sampling_rate: has no effect"),
        (
            ["--local_privacy_mechanism", "norm_clipping_only"],
            "local_privacy_mechanism: norm_clipping_only promises no",
        ),
        (["--central_privacy_mechanism", "none"], "central_privacy_mechanism: none promises no epsilon"),
        (["--args_config", "baseline"], "central_privacy_mechanism: none promises no epsilon"),
        (
            ["--central_privacy_mechanism", "gaussian", "--local_privacy_mechanism", "gaussian"],
            "each keep a promise of their own; audit one at a time",
        ),
        (["--learning_rate", "1"], "learning_rate: unknown option; did you mean sampling_rate"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_a_line(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        audit(options)
    assert "\n" not in str(refused.value)


def test_a_promise_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(PrivacyError, match="central_delta"):
        audit(["--central_delta", "0.1"])
