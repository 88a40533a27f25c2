"""``fedflair reproduce``: a row of the published benchmark from nothing to its score, beside the published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fedflair.commands.download import download
from fedflair.commands.prepare import prepare
from fedflair.config.options import parse_given, train_parser
from fedflair.config.parsing import as_usage_errors
from fedflair.errors import ConfigError, FedflairError
from fedflair.runs.json_text import dumps
from fedflair.sweep.plan import Trial, plan_sweep, sweep_spec
from fedflair.sweep.reproduction import HEADINGS, ROWS, reproduction
from fedflair.system.console import Console, table
from fedflair.system.files import write_atomically
from fedflair.system.terminal import say

SEEDS = "0,1,2"


def reproduce(arguments: Sequence[str]) -> None:
    """Fetches and prepares the data where they are not there, trains with several seeds, reports, and compares.

    The same command goes on with what was stopped. Raises FedflairError at the end where some runs failed.
    """
    given = parse_given(parser(), arguments)
    with as_usage_errors():
        row = _row(given)
        output = Path(given.pop("output", f"runs/{row}"))
        source, endpoint = given.pop("source", None), given.pop("endpoint", None)
        as_json = bool(given.pop("json", False))
        seeds = given.pop("seeds", SEEDS)
        changed = {name: value for name, value in given.items() if name != "data_path"}
        trials = plan_sweep(sweep_spec({**given, "args_config": row, "seeds": seeds}))
    # What trains takes two seconds to load, which a mistyped option need not wait for.
    from fedflair.sweep.trials import run_trials

    tell = partial(say, stderr=True)
    _store(trials[0], source, endpoint)
    outcomes = run_trials(trials, output, tell)
    failed = [trial.name for trial, outcome in zip(trials, outcomes) if outcome.status != "done"]
    if len(failed) < len(trials):
        result = reproduction(row, trials[0].config, changed, outcomes)
        write_atomically(output / "reproduction.json", dumps(result, indent=2) + "\n")
        if not as_json:
            from fedflair.commands.report import report

            report(output, output=output / "report.html")
        _show(result, as_json)
    if failed:
        raise FedflairError(
            f"{len(failed)} of {len(trials)} runs failed: {', '.join(failed)}; see {output / 'logs'}, and give the "
            "same command to try them again"
        )


def parser() -> ArgumentParser:
    """The parser of the command's words."""
    made = train_parser(
        "reproduce",
        "Reproduce a row of the published benchmark: download, preparation, training over seeds, report, and its "
        f"score beside the published one. Rows: {', '.join(ROWS)}.",
        "ROW [--output FOLDER] [--seeds 0,1,2]",
    )
    made.add_argument("row", type=str, help="The row, which is the name of its configuration.")
    made.add_argument("--output", type=str, help="The folder of its runs; the same one continues it. [runs/ROW]")
    made.add_argument("--seeds", type=str, help=f"Seeds to train with. [{SEEDS}]")
    made.add_argument("--source", type=str, help="A downloaded dataset, so that none is fetched.")
    made.add_argument("--endpoint", type=str, help="Address of a mirror of the hub.")
    made.add_argument("--json", action="store_true", help="Print both scores as JSON.")
    return made


def _row(given: dict[str, Any]) -> str:
    if "args_config" in given:
        raise ConfigError("args_config: a row has its own configuration; fedflair sweep takes another with seeds")
    row = str(given.pop("row"))
    if row not in ROWS:
        raise ConfigError(f"row: {row} is none; there are {', '.join(ROWS)}")
    return row


def _store(trial: Trial, source: str | None, endpoint: str | None) -> None:
    """Sees to it that the store is there: prepared, from what is downloaded first where it is not given."""
    path = trial.config.data.data_path
    if path.exists():
        for option, value in (("source", source), ("endpoint", endpoint)):
            if value is not None:
                raise ConfigError(f"{option}: {path} is there already; leave {option} out, or name another data_path")
        return
    fetched = Path(source) if source else path.parent / "download"
    if source is None:
        download(output=fetched, endpoint=endpoint)
    prepare(source=fetched, output=path)


def _show(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        say(dumps(result, indent=2))
        return
    console = Console()
    console.print(table("Published, and here", HEADINGS, [result["cells"]]))
    for note in result["notes"]:
        console.say(note)
