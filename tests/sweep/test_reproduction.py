"""What a reproduced row says: both scores, and why they are not to be compared where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.data.synthetic.synthesize import synthesize
from fedflair.sweep.reproduction import reproduction
from fedflair.sweep.results import Outcome


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("twin") / "twin.hdf5"
    synthesize(output=path, num_users=10, processes=1)
    return path


def outcome(score: float) -> Outcome:
    return Outcome("done", test={"macro_ap": score})


def test_scores_side_by_side(twin: Path) -> None:
    config = TrainConfig.of(data_path=twin)
    result = reproduction("baseline", config, {}, [outcome(0.60), outcome(0.62), Outcome("unfinished")])
    assert result["cells"] == ["baseline", "macro AP", "62.0 ± 0.3", "61.0 ± 1.4", "2", "-1.0"]
    assert result["difference"] == pytest.approx(-1.0)
    # The twin's score is not FLAIR's, whatever it is.
    assert result["notes"] == [f"{twin} is synthetic: its scores say nothing of FLAIR's."]
    assert not result["comparable"]


def test_a_row_without_a_published_figure(twin: Path) -> None:
    result = reproduction("scaffold", TrainConfig.of(data_path=twin), {"seed": 1}, [outcome(0.5)])
    assert result["cells"][2:] == ["none", "50.0", "1", "-"]


def test_what_is_changed_is_said_unless_nothing_follows_from_it(twin: Path) -> None:
    config = TrainConfig.of(data_path=twin)
    changed = {"cohort_size": 20, "device": "cpu", "num_threads": 2}
    assert reproduction("baseline", config, changed, [])["notes"][1:] == ["Not the row as published: cohort_size 20."]
    assert len(reproduction("baseline", config, {"device": "cpu"}, [])["notes"]) == 1
