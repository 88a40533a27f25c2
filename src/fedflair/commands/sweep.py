"""``fedflair sweep``: trains a grid or random samples of options, with several seeds, and shows how they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedflair.config.options import parse_given, read_translated, train_parser
from fedflair.errors import FedflairError
from fedflair.runs.json_text import dumps
from fedflair.sweep.plan import plan_sweep, sweep_spec
from fedflair.sweep.results import notes_of, summarise, table_of, title_of
from fedflair.sweep.trials import run_trials
from fedflair.system.console import Console, table
from fedflair.system.terminal import say


def sweep(arguments: Sequence[str]) -> None:
    """Parses, runs what has not been run, and shows the table.

    Raises FedflairError at the end where some runs failed.
    """
    parser = train_parser("sweep", "Run a grid or random samples of options with several seeds, and compare them.")
    parser.add_argument("--sweep_config", type=str, help="A sweep file (see docs/sweeps.md).")
    parser.add_argument("--output", type=str, required=True, help="The sweep's folder; the same one continues it.")
    parser.add_argument("--grid", type=str, nargs="+", help="Every combination of these: option=value,value,...")
    parser.add_argument("--seeds", type=str, help="Seeds that each point is run with: 0,1,2.")
    parser.add_argument("--json", action="store_true", help="Print the results as JSON.")
    given = parse_given(parser, arguments)
    as_json, output = bool(given.pop("json", False)), Path(given.pop("output"))
    spec = sweep_spec(given)
    trials = plan_sweep(spec)
    for note in read_translated(Path(spec.args_config)).notes if spec.args_config else ():
        say(note, stderr=True)
    outcomes = run_trials(trials, output, partial(say, stderr=True))
    results = summarise(trials, outcomes)
    if as_json:
        say(dumps(results, indent=2))
    else:
        show(results, output)
    failed = [trial for trial, outcome in zip(trials, outcomes) if outcome.status != "done"]
    if failed:
        raise FedflairError(
            f"{len(failed)} of {len(trials)} runs failed: {', '.join(trial.name for trial in failed)}; see "
            f"{output / 'logs'}, and give the same command to try them again"
        )


def show(results: Mapping[str, Any], output: Path) -> None:
    """Prints what came out of the sweep in ``output``."""
    headings, rows = table_of(results)
    console = Console()
    console.print(table(title_of(results), headings, rows, wrapped=[headings.index("epsilon")]))
    for note in [*notes_of(results), f"sweep: {output}"]:
        console.say(note)
