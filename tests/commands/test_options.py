"""``fedflair options`` and the page that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.cli import run as run_command
from fedflair.commands import COMMANDS
from fedflair.commands.options import page
from fedflair.commands.parsers import parser_of_command
from fedflair.config.described import described
from fedflair.config.train_config import NAMES, TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page() + "\n", "write it anew: fedflair options --markdown > docs/options.md"
    assert all(f"## fedflair {name}\n" in PAGE.read_text() for name in COMMANDS)


def test_every_option_of_a_training_is_there_with_its_default_and_a_meaning() -> None:
    found = {option.name: option for group in described(parser_of_command("train")).values() for option in group}
    assert {f"--{name}" for name in NAMES} <= set(found)
    assert all(option.meaning for option in found.values())
    size, rate = found["--cohort_size"], found["--local_momentum"]
    assert (size.default, size.allowed) == ("200", "a whole number, at least 1")
    assert (rate.default, rate.allowed) == ("0.0", "a number, in [0, 1)")
    assert found["--local_batch_size"].allowed == "a whole number, at least 1, or null"
    assert found["--model"].allowed == "multi_label_cnn or small_cnn; or a plugin's"
    assert found["--dry_run"].allowed == "stands alone"
    default = TrainConfig()
    shown = {name: found[f"--{name}"].default for name in NAMES}
    told = {name: "" if default.option(name) in (None, ()) else str(default.option(name)) for name in NAMES}
    assert {name: value.lower() for name, value in shown.items()} == {name: v.lower() for name, v in told.items()}


def test_a_bound_of_training_is_not_told_of_another_commands_option_of_that_name() -> None:
    seed = next(o for o in described(parser_of_command("synthesize"))["General"] if o.name == "--seed")
    assert seed.allowed == "a whole number"


def test_tables_show_what_is_searched_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run_command(["options", "lora_r", "dropout"])
    shown = capsys.readouterr().out
    assert "--lora_rank" in shown
    assert "--dropout_rate" in shown
    assert "--cohort_size" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    run_command(["options", "--command", "describe"])
    assert "--verify" in capsys.readouterr().out
