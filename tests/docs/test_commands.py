"""The pages of commands say what their parsers do."""

from __future__ import annotations

import re

import pytest
from docs.generate import commands

from fedflair.cli import COMMANDS
from fedflair.config.train_config import NAMES


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: commands.page(name) for name in COMMANDS}


def test_every_option_of_every_command_stands_on_its_page_once(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        shown = re.findall(r"^<span id=\"\w+\"></span>`(--\w+)`", page, re.MULTILINE)
        assert len(shown) == len(set(shown))
        own = {option for action in commands.parser_of(name)._actions for option in action.option_strings}
        others = {f"--{option}" for option in NAMES} if "](train.md)" in page else set()
        assert set(shown) == own - others - {"-h", "--help"} - {o for o in own if o.startswith("--print")}, name
    assert {f"--{name}" for name in NAMES} <= set(re.findall(r"--\w+", pages["train"]))


def test_an_entry_has_values_default_and_meaning(pages: dict[str, str]) -> None:
    assert (
        '<span id="cohort_size"></span>`--cohort_size` · whole number · default `200`\n:   Clients in a round '
        in pages["train"]
    )
    assert "`--precision` · one of `fp32`, `bf16` · default `fp32`\n" in pages["train"]
    assert "`--pretrained` · one of `true`, `false` · default `true`\n" in pages["train"]
    assert "`--json` · on if given\n" in pages["evaluate"]
    assert "`--run` · file or folder · **required**\n" in pages["evaluate"]
    assert "`--data_path` · file or folder · no default\n" in pages["evaluate"]


def test_the_usage_names_what_is_asked_for(pages: dict[str, str]) -> None:
    usage = "fedflair convert SOURCE OUTPUT --layout packed|pfl|ml-flair|ml-flair-central [--option value ...]"
    assert f"```text\n{usage}\n" in re.sub(r"\|(parquet|webdataset)", "", pages["convert"])


def test_the_overview_leads_to_every_page() -> None:
    assert re.findall(r"\(commands/(\w+)\.md\)", commands.overview()) == list(COMMANDS)


def test_words_of_help_are_no_markup() -> None:
    assert commands._text("a_b*c [d] <e> | f") == r"a\_b\*c \[d\] &lt;e&gt; \| f"
