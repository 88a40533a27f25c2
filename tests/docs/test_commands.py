"""The pages of commands say what their parsers do."""

from __future__ import annotations

import re

import pytest
from docs.generate import commands

from fedflair.commands import COMMANDS
from fedflair.commands.parsers import parser_of_command
from fedflair.config.train_config import NAMES


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: commands.page(name) for name in COMMANDS}


def test_every_option_of_every_command_stands_on_its_page_once(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        shown = re.findall(r"^<span id=\"\w+\"></span>`(--\w+)`", page, re.MULTILINE)
        assert len(shown) == len(set(shown))
        own = {option for action in parser_of_command(name)._actions for option in action.option_strings}
        others = {f"--{option}" for option in NAMES} if "](train.md)" in page else set()
        assert set(shown) == own - others - {"-h", "--help"}, name
    assert {f"--{name}" for name in NAMES} <= set(re.findall(r"--\w+", pages["train"]))
    assert "](train.md)" in pages["sweep"]
    assert "](train.md)" not in pages["train"] + pages["evaluate"]


def test_an_entry_has_values_default_and_meaning(pages: dict[str, str]) -> None:
    assert '<span id="mu"></span>`--mu` · ' in pages["train"]
    assert re.search(r"`--cohort_size` · a whole number[^\n]* · default `200`\n:   Clients in a round ", pages["train"])
    assert "`--precision` · fp32 or bf16 · default `fp32`\n" in pages["train"]
    assert "`--run` · a file or folder · **required**\n" in pages["evaluate"]
    assert "`--json` · stands alone\n" in pages["evaluate"]
    assert "## Data\n\nWhat is trained on, and as whose.\n" in pages["train"]


def test_the_usage_names_what_is_asked_for(pages: dict[str, str]) -> None:
    assert "```text\nfedflair convert SOURCE OUTPUT --layout LAYOUT [--option value ...]\n" in pages["convert"]
    assert "```text\nfedflair predict [PHOTOGRAPHS ...] [--option value ...]\n" in pages["predict"]


def test_the_overview_leads_to_every_page() -> None:
    assert re.findall(r"\(commands/(\w+)\.md\)", commands.overview()) == list(COMMANDS)


def test_words_of_help_are_no_markup() -> None:
    assert commands.text("a_b*c [d]  <e> | f") == r"a\_b\*c \[d\] &lt;e&gt; \| f"
