"""``fedflair audit``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fedflair.commands.audit import audit
from fedflair.errors import ConfigError, PrivacyError


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"rounds": 8, "num_canaries": 300, "seed": 1}
    audit(**options)
    shown = capsys.readouterr().out
    assert "accounted epsilon  2 at delta 1e-05" in shown
    assert "verdict            nothing is wrong" in shown
    audit(**options, json_=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["accounted"] == pytest.approx(2.0, rel=1e-4)
    assert answer["findings"] == []
    assert math.isfinite(answer["estimate"])


def test_impossible_options_are_named() -> None:
    with pytest.raises(ConfigError, match="num_canaries: 10"):
        audit(num_canaries=10)
    with pytest.raises(ConfigError, match="sampling_rate"):
        audit(sampling_rate=2.0)
    with pytest.raises(PrivacyError, match="central_delta"):
        audit(central_delta=0.1)
