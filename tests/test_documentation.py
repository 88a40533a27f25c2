"""What the pages say is true: their commands run, their links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import runpy
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

from fedflair.cli import main
from fedflair.commands import COMMANDS
from fedflair.commands.arguments import call
from fedflair.commands.parsers import parser_of_command
from fedflair.commands.train import parse_train_config
from fedflair.config.options import parse_given, read_given
from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.sweep.plan import plan_sweep, sweep_spec
from tests.conftest import jpeg

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# The pages with a block that is run here, in an order in which each finds what it needs.
READ_IN_TURN = ("README.md", "first_steps.md", "evaluation.md", "using_models.md", "models.md", "command_line.md")
SMALL = (
    "--pretrained false --model small_cnn --image_size 32 --central_num_iterations 1 --evaluation_frequency 1 "
    "--cohort_size 4 --device cpu"
)
RUN_HERE = "run by tests/test_documentation.py"


class Block(NamedTuple):
    """Commands of a page. mark: the comment before them, which says who runs them, or why nobody does."""

    page: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        return self.text.replace("\\\n", " ").splitlines()


def blocks(page: Path) -> list[Block]:
    """The bash blocks of a page."""
    found = re.findall(r"(?:<!-- ([^\n]*) -->\n)?```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [Block(page.name, *pair) for pair in found]


ALL = [block for page in PAGES for block in blocks(page)]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    return subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}: {block.text.split()[1]}")
def test_every_block_says_which_test_runs_it_or_why_none_does(block: Block) -> None:
    runner = re.fullmatch(r"run by (tests/\S+\.py)", block.mark)
    if runner is None:
        assert re.fullmatch(r"not run: .{5,}", block.mark), f"{block.page}: {block.text}"
    else:
        assert block.page in (ROOT / runner[1]).read_text()
    for named in re.findall(r"tests/[\w/.]*\w", block.mark):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_stands_outside_of_the_blocks_that_are_looked_at(page: Path) -> None:
    outside = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert re.findall(r"^ {4}fedflair [a-z]+ .*--.*$", outside, re.MULTILINE) == []


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who reads the pages in turn, and has typed each command in them that is run here.

    In this process: a command's imports take longer than what it does. That processes do the same, tests/test_cli.py
    and tests/test_main.py show.
    """
    folder = tmp_path_factory.mktemp("reader")
    typed: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "photographs").mkdir()
        for path in ("holiday.jpg", "photographs/a.jpg"):
            (folder / path).write_bytes(jpeg(len(path), side=300))
        for page in READ_IN_TURN:
            commands = [
                line for block in ALL if (block.page, block.mark) == (page, RUN_HERE) for line in block.commands
            ]
            for command in commands:
                words = shlex.split(command)
                if words[0] == "fedflair" and command not in typed:
                    assert main(words[1:]) == 0, f"{page}: {command}"
                    typed.add(command)
            if page == "README.md":
                for place in ("data/demo", "data/flair"):
                    (folder / place).mkdir(parents=True)
                    shutil.copy("flair.hdf5", f"{place}/flair_federated.hdf5")
    return folder


def test_the_first_run_of_the_readme_runs_as_it_stands(reader: Path) -> None:
    page = (reader / "report.html").read_text()
    assert all(name in page for name in ("natural", "iid", "private"))
    private = json.loads((reader / "runs" / "private" / "summary.json").read_text())
    assert private["privacy"]["epsilon"] == pytest.approx(2.0, rel=1e-3)
    assert private["setting"] == "flair + gaussian_moments_accountant"


def test_what_the_other_pages_run_leaves_what_they_say(reader: Path) -> None:
    assert {block.page for block in ALL if block.mark == RUN_HERE} == set(READ_IN_TURN)
    left = ("dataset/index.html", "predictions.html", "models/natural/README.md", "runs/natural/per_user_test.jsonl")
    assert [path for path in left if not (reader / path).is_file()] == []


def module(command: str, folder: Path, patch: pytest.MonkeyPatch) -> int:
    """The exit status of ``python -m NAME ...`` given in ``folder``, run in this process."""
    _, _, name, *words = shlex.split(command)
    with patch.context() as within:
        within.chdir(folder)
        within.syspath_prepend(str(folder))
        within.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    for imported in [known for known in sys.modules if known.split(".")[0] == name.split(".")[0]]:
        del sys.modules[imported]
    return int(ended.value.code or 0)


def test_the_commands_of_the_datasets_documentation_run_from_benchmarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(
        ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("data", "runs")
    )
    (commands,) = (block.commands for block in ALL if block.page == "README.md" and "flair.train" in block.text)
    assert len(commands) == 5
    for position, command in enumerate(commands):
        # As they stand they need the network and a GPU for days: the same words, and smaller values after them.
        small = "--source synthetic --num_users 20" if position == 0 else f"{SMALL} --run runs/{position}"
        small += " --mean_datapoints_per_user 4" if "flair_iid" in command else ""
        assert module(f"{command} {small}", folder, monkeypatch) == 0, command
    summaries = [read_summary(RunFolder(folder / "runs" / str(k))) for k in (1, 2, 3, 4)]
    mechanism = "gaussian_moments_accountant"
    assert [summary["setting"] for summary in summaries] == [
        "flair_iid",
        "flair",
        f"flair_iid + {mechanism}",
        f"flair + {mechanism}",
    ]
    # The published private setting: ten million users, a delta above one in ten million, whoever is trained on.
    for summary in summaries[2:]:
        told = summary["privacy"]
        assert (told["population"], told["noise_cohort_size"], told["delta"]) == (10_000_000, 5000, 1e-5)
        assert told["words"].startswith("Simulated deployment of 10,000,000 users: epsilon 2 at delta 1e-05 ")
        assert (
            "Delta is not below 1/10,000,000: a weak promise, for comparison only, which giving 100 " in told["words"]
        )


def test_data_can_be_written_one_group_an_image(tmp_path: Path) -> None:
    import h5py

    command = "python -m dataset.flair.download_preprocess --not_group_data_by_user --source synthetic --num_users 20"
    result = shell(f"{command} --output_file {tmp_path}/central.hdf5", ROOT / "benchmarks")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "central.hdf5") as file:
        image = next(iter(file["train"].values()))
        assert image["image"].shape == (256, 256, 3)
        assert image["user_id"][()]
    assert [path.name for path in tmp_path.iterdir()] == ["central.hdf5"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are that a reader has from elsewhere."""
    folder = tmp_path_factory.mktemp("others")
    shutil.copytree(ROOT / "benchmarks" / "flair" / "configs", folder / "pfl-research/benchmarks/flair/configs")
    (folder / "runs" / "x").mkdir(parents=True)
    shutil.copy(ROOT / "src" / "fedflair" / "config" / "presets" / "demo.yaml", folder / "runs" / "x" / "config.yaml")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_name_real_options(page: Path, others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(others)
    text = "\n".join(command for block in blocks(page) for command in block.commands)
    variables = dict(re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE))
    for command in string.Template(text).safe_substitute(variables).splitlines():
        if command.strip().startswith("fedflair train"):
            words = shlex.split(command, comments=True)[2:]
            if "--resume" not in words:
                assert isinstance(parse_train_config(words), TrainConfig)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_commands_on_a_page_are_typed_right(page: Path, others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(others)
    for line in (command for block in blocks(page) for command in block.commands):
        words = shlex.split(line, comments=True)
        if words[:1] == ["fedflair"] and words[1] not in ("train", "--version"):
            assert words[1] in COMMANDS, line
            typed = words[2 : words.index(">")] if ">" in words else words[2:]
            function = getattr(importlib.import_module(f"fedflair.commands.{words[1]}"), words[1])
            if list(inspect.signature(function).parameters) != ["arguments"]:
                call(asked_only(function), words[1], typed)
            elif words[1] == "sweep":
                given = parse_given(parser_of_command("sweep"), typed)
                given.pop("output")
                # A file of its own is somebody's.
                assert "sweep_config" in given or plan_sweep(sweep_spec(given))
            else:
                # A run's own configuration is somebody's, too; one that is shipped has the same options.
                own = ["demo" if word.endswith("/config.yaml") else word for word in typed]
                read_given(parser_of_command(words[1]), own)


def asked_only(function: Callable[..., object]) -> Callable[..., object]:
    """A function of the same signature that does nothing."""

    def nothing(*positional: object, **named: object) -> None: ...

    nothing.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    nothing.__doc__ = function.__doc__
    return nothing


def test_the_makefile_has_the_promised_targets() -> None:
    listed = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "setup", "demo", "test", "lint", "bench", "docs"],
        capture_output=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr


# Named as an example, or written by a run.
NO_FILES = {"fednova.py", "commands/NAME.py", "config.yaml", "src/fedflair/federated/algorithms/fednova.py"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    """``room/file.py`` in a page is such a file of the package, the tests, perf/ or benchmarks/."""
    files = [
        str(p)
        for room in ("src", "tests", "perf", "benchmarks", "docs")
        for p in (ROOT / room).rglob("*")
        if p.is_file()
    ]
    named = set(re.findall(r"`([\w./-]+\.(?:py|c|h|yaml))\b[^`]*`", page.read_text())) - NO_FILES
    assert [name for name in sorted(named) if not any(file.endswith(f"/{name}") for file in files)] == []


@lru_cache(maxsize=1)
def texts() -> tuple[tuple[str | None, ...], ...]:
    """Every text in the package in its parts, None for what is put in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(tuple(str(p.value) if isinstance(p, ast.Constant) else None for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((node.value,))
    # What is said in two words or fewer is said of other things as well.
    return tuple(parts for parts in found if sum(len((part or "").split()) for part in parts) > 2)


def quoted() -> list[str]:
    """The messages in the page of troubles."""
    return re.findall(r"```text\n(.*?)\n```", (ROOT / "docs" / "troubleshooting.md").read_text(), re.DOTALL)


def words_of_nobody(message: str) -> str:
    """What of a message stands in no text of the package, but for capitals, numbers and signs in another's place.

    A message that ends in `` ...`` is the beginning of a text.
    """
    if message.endswith(" ..."):
        begun = re.compile(re.sub(r"[A-Z]{2,}", ".*?", re.escape(message.removesuffix(" ..."))))
        return "" if any(begun.match("".join(part or "" for part in parts)) for parts in texts()) else message
    said = [False] * len(message)
    for parts in texts():
        if not all(part in message for part in parts if part):
            continue
        for match in re.finditer(".*?".join("" if part is None else f"({re.escape(part)})" for part in parts), message):
            for group in range(1, len(match.groups()) + 1):
                said[slice(*match.span(group))] = [True] * len(match[group])
    rest = "".join("\0" if known else sign for known, sign in zip(said, message))
    return " ".join(re.findall(r"[a-z]{2,}", rest))


@pytest.mark.parametrize("message", quoted())
def test_a_message_in_the_page_of_troubles_is_one_of_the_programs(message: str) -> None:
    assert words_of_nobody(message) == ""


def test_a_message_of_nobodys_is_noticed() -> None:
    changed = "FILE: no such store; create one with 'fedflair prepare' or 'fedflair synthesize'"
    assert "create" in words_of_nobody(changed)
    assert words_of_nobody("FILE: no such place ...") != ""
    assert len(quoted()) > 20
