"""``fedflair sweep``: trains a grid or random samples of options, with several seeds, and shows how they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fedflair.config.options import parse_given, read_translated, train_parser
from fedflair.config.parsing import as_usage_errors
from fedflair.errors import FedflairError
from fedflair.runs.json_text import dumps
from fedflair.sweep.curve import Curve, table_of_curve
from fedflair.sweep.curve_files import FILES, write_curve
from fedflair.sweep.methods import methods_text
from fedflair.sweep.plan import plan_sweep, sweep_spec
from fedflair.sweep.results import notes_of, summarise, table_of, title_of
from fedflair.system.console import Console, table
from fedflair.system.terminal import say


def sweep(arguments: Sequence[str]) -> None:
    """Parses, runs what has not been run, and shows the table.

    Raises FedflairError at the end where some runs failed.
    """
    given = parse_given(parser(), arguments)
    as_json, quiet, output = (given.pop(name, None) for name in ("json", "quiet", "output"))
    folder = Path(output)
    with as_usage_errors():
        spec = sweep_spec(given)
        trials = plan_sweep(spec)
    notes = read_translated(Path(spec.args_config)).notes if spec.args_config else ()
    for note in () if quiet else notes + spec.notes:
        say(note, stderr=True)
    # What trains takes two seconds to load, which a mistyped option need not wait for.
    from fedflair.sweep.trials import run_trials

    outcomes = run_trials(trials, folder, _say_nothing if quiet else partial(say, stderr=True))
    results = summarise(trials, outcomes)
    if spec.epsilons:
        curve = write_curve(folder, trials, outcomes)
        if not as_json:
            show_curve(curve, results, folder)
    elif not as_json:
        show(results, folder)
    if as_json:
        say(dumps(results, indent=2))
    failed = [trial for trial, outcome in zip(trials, outcomes) if outcome.status != "done"]
    if failed:
        raise FedflairError(
            f"{len(failed)} of {len(trials)} runs failed: {', '.join(trial.name for trial in failed)}; see "
            f"{folder / 'logs'}, and give the same command to try them again"
        )


def parser() -> ArgumentParser:
    """The parser of the command's words."""
    made = train_parser("sweep", "Run a grid or random samples of options with several seeds, and compare them.")
    made.add_argument("--sweep_config", type=str, help="A sweep file (see docs/sweeps.md).")
    made.add_argument("--output", type=str, required=True, help="The sweep's folder; the same one continues it.")
    made.add_argument("--grid", type=str, nargs="+", help="Every combination of these: option=value,value,...")
    made.add_argument(
        "--seeds",
        type=str,
        help="Seeds that each point is run with: how many, 3 for 0, 1 and 2; or which, such as 5,7 or 5, with a comma.",
    )
    made.add_argument(
        "--epsilons",
        type=str,
        help="Train with each of these privacy budgets, such as 0.5,2,8,none, where none is no mechanism: a curve of "
        "score against epsilon as table, plot, CSV, LaTeX and a paragraph of methods. The mechanism is "
        "gaussian_moments_accountant where none is named.",
    )
    made.add_argument("--json", action="store_true", help="Print the results as JSON.")
    made.add_argument("--quiet", action="store_true", help="Say nothing of runs as they start and end.")
    return made


def _say_nothing(text: str) -> None:
    """Where nobody listens."""


def show_curve(curve: Curve, results: Mapping[str, Any], output: Path) -> None:
    """Prints the curve of the sweep in ``output``, in the order of its budgets, and the paragraph on it."""
    headings, rows = table_of_curve(curve)
    console = Console()
    title = "Score against privacy budget, mean ± standard deviation over seeds, best model on val"
    column = headings.index("epsilon")
    console.print(table(title, headings, rows, wrapped=[column], words=[column]))
    for note in [*notes_of(results), "", *methods_text(curve).split("\n"), ""]:
        console.say(note)
    console.say(f"sweep: {output} ({', '.join(FILES)})")


def show(results: Mapping[str, Any], output: Path) -> None:
    """Prints what came out of the sweep in ``output``."""
    headings, rows = table_of(results)
    console = Console()
    console.print(table(title_of(results), headings, rows, wrapped=[headings.index("epsilon")]))
    for note in [*notes_of(results), f"sweep: {output}"]:
        console.say(note)
