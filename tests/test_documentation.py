"""What the pages say is true: their commands run, their links lead somewhere."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedflair.commands import COMMANDS
from fedflair.commands.arguments import call
from fedflair.commands.parsers import parser_of_command
from fedflair.commands.train import parse_train_config
from fedflair.config.options import parse_given, read_given
from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.sweep.plan import plan_sweep, sweep_spec

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SMALL = (
    "--pretrained false --model_type squeezenet1_1 --image_size 32 --central_num_iterations 1 --evaluation_frequency 1 "
    "--cohort_size 4 --device cpu"
)


def blocks(page: Path) -> list[str]:
    """The bash blocks of a page."""
    return re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    program = [sys.executable, "-m", "fedflair.cli"] if words[0] == "fedflair" else [sys.executable]
    return subprocess.run([*program, *words[1:]], cwd=folder, capture_output=True, text=True, check=False)


def test_the_first_run_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- run by tests/test_documentation.py -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    for command in block.group(1).splitlines():
        result = shell(command, tmp_path)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        assert "Traceback" not in result.stderr
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in ("natural", "iid", "private"))
    private = json.loads((tmp_path / "runs" / "private" / "summary.json").read_text())
    assert private["privacy"]["epsilon"] == pytest.approx(2.0, rel=1e-3)
    assert private["setting"] == "flair + gaussian_moments_accountant"


def test_the_commands_of_the_datasets_documentation_run_from_benchmarks(tmp_path: Path) -> None:
    folder = shutil.copytree(
        ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("data", "runs")
    )
    commands = next(block for block in blocks(ROOT / "README.md") if "flair.download_preprocess" in block).splitlines()
    assert len(commands) == 5
    for position, command in enumerate(commands):
        # As they stand they need the network and a GPU for days: the same words, and smaller values after them.
        small = "--source synthetic --num_users 20" if position == 0 else f"{SMALL} --run runs/{position}"
        small += " --mean_datapoints_per_user 4" if "flair_iid" in command else ""
        result = shell(f"{command} {small}", folder)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_name_real_options(page: Path) -> None:
    text = "\n".join(blocks(page)).replace("\\\n", " ")
    variables = dict(re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE))
    for command in string.Template(text).safe_substitute(variables).splitlines():
        if command.strip().startswith("fedflair train"):
            words = shlex.split(command, comments=True)[2:]
            if "--resume" not in words:
                assert isinstance(parse_train_config(words), TrainConfig)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_commands_on_a_page_are_typed_right(page: Path) -> None:
    text = "\n".join(blocks(page)).replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["fedflair"] and words[1] != "train":
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
                read_given(parser_of_command(words[1]), typed)


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
    files = [str(p) for room in ("src", "tests", "perf", "benchmarks") for p in (ROOT / room).rglob("*") if p.is_file()]
    named = set(re.findall(r"`([\w./-]+\.(?:py|c|h|yaml))\b[^`]*`", page.read_text())) - NO_FILES
    assert [name for name in sorted(named) if not any(file.endswith(f"/{name}") for file in files)] == []
