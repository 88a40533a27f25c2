"""``fedflair ledger verify``: what it prints, and how it ends where a ledger is unsound."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.cli import main
from fedflair.commands.ledger import ledger
from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.ledger.lines import FILE_NAME
from fedflair.training.verification import verify
from tests.privacy.ledgers import finished_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def test_a_sound_ledger_shows_both_epsilons(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(run)
    ledger("verify", run)
    shown = capsys.readouterr().out
    assert "sound, 6 rounds" in shown
    assert "epsilon of the simulated deployment: 2 at delta 0.0001" in shown
    assert f"epsilon of the run itself: {show(found.run_epsilon)} at delta 0.0001" in shown


def test_an_unsound_ledger_fails_in_one_line(run: Path) -> None:
    lines = (run / FILE_NAME).read_text().splitlines(keepends=True)
    (run / FILE_NAME).write_text("".join(lines[::2]))
    with pytest.raises(
        PrivacyError, match=r"line 2 does not follow: lines miss .* do not trust this run's epsilon"
    ) as caught:
        ledger("verify", run)
    assert "\n" not in str(caught.value)


def test_an_anchor_is_named_by_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path / "run", anchor=tmp_path / "anchor")
    assert main(["ledger", "verify", str(run), "--ledger_anchor", str(tmp_path / "anchor")]) == 0
    assert f"sound, 6 rounds, as anchored in {tmp_path / 'anchor'}\n" in capsys.readouterr().out
    assert main(["ledger", "verify", str(run), f"--ledger_anchor={tmp_path / 'another'}"]) == 1
    assert "another: no such anchor; name the file that" in capsys.readouterr().err
