"""What came out of a sweep: ranked by the mean of a metric on val, never by test; as JSON, CSV, Markdown, a table."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedflair.privacy.accounting import shown
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.json_text import dumps
from fedflair.sweep.cost import cost_of, sentence_of
from fedflair.sweep.plan import Trial
from fedflair.system.csv_text import csv_cell
from fedflair.system.files import write_atomically
from fedflair.system.terminal import cell
from fedflair.training.accountant import first_line

RESULTS = "sweep.json"
CAVEAT = (
    "Each epsilon in the table is that of one run, or where it is marked so of the deployment simulated. Every further "
    "run on the same users costs more, and so does every option chosen by looking at numbers of theirs without noise."
)
ALSO = ("macro_ap", "micro_ap", "macro_f1", "loss")


@dataclass(frozen=True)
class Outcome:
    """What a run folder says of its run. error: the last line of its log, where it is not done.

    privacy, local_privacy: its mechanisms as it described them; None without one.
    num_parameters: that are trained, clipped and noised; None of a run of an earlier version.
    terms: line 1 of its ledger, which has what its rounds release; None without one.
    """

    status: Literal["waiting", "unfinished", "done"]
    val: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    privacy: shown.Facts | None = None
    local_privacy: shown.Facts | None = None
    error: str | None = None
    num_parameters: int | None = None
    terms: Mapping[str, Any] | None = None


def outcome_of(run: RunFolder, log: Path) -> Outcome:
    """Reads the state of a run. A run that was stopped, killed or has failed is ``unfinished``."""
    terms = first_line(run.path) or None
    if run.summary.is_file():
        summary = read_summary(run)
        return Outcome(
            "done",
            summary["val"],
            summary["test"],
            summary["seconds"],
            summary["privacy"],
            summary.get("local_privacy"),
            num_parameters=summary.get("num_parameters"),
            terms=terms,
        )
    if not log.is_file():
        return Outcome("waiting")
    lines = log.read_text(errors="replace").strip().splitlines()
    return Outcome("unfinished", error=lines[-1] if lines else "it printed nothing", terms=terms)


def write_results(output: Path, trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> None:
    """Writes ``sweep.json``, ``sweep.csv`` (a line a run) and ``sweep.md`` (a line a point)."""
    results = summarise(trials, outcomes)
    write_atomically(output / RESULTS, dumps(results, indent=2) + "\n")
    write_atomically(output / "sweep.csv", _csv(trials, outcomes))
    headings, rows = table_of(results, also=ALSO)
    lines = [" | ".join(map(_markdown, row)) for row in (headings, ["---"] * len(headings), *rows)]
    text = "\n".join([title_of(results), "", *(f"| {line} |" for line in lines), "", *notes_of(results)])
    write_atomically(output / "sweep.md", text.rstrip("\n") + "\n")


def summarise(trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The points, best mean on val first, each with mean and sample standard deviation over its finished seeds."""
    metric = trials[0].config.evaluation.best_metric
    by_point: dict[str, list[tuple[Trial, Outcome]]] = {}
    for pair in zip(trials, outcomes):
        by_point.setdefault(pair[0].point, []).append(pair)
    points = []
    for name, runs in by_point.items():
        done = [outcome for _, outcome in runs if outcome.status == "done"]
        central, local = shown.worst(o.privacy for o in done), shown.worst(o.local_privacy for o in done)
        first = runs[0][0]
        points.append(
            {
                "point": name,
                "setting": first.setting,
                "options": dict(first.varied),
                "num_runs": len(runs),
                "num_done": len(done),
                "val": _spreads([outcome.val for outcome in done]),
                "test": _spreads([outcome.test for outcome in done]),
                "seconds": statistics.fmean(o.seconds or 0.0 for o in done) if done else None,
                **_epsilons(central),
                "epsilon_shown": shown.cell(central, local) if done or not _is_private(first) else "not known yet",
                "epsilon_legend": shown.legend(central, local),
                "runs": [
                    {"run": f"runs/{trial.name}", "seed": trial.seed, "status": o.status, "error": o.error}
                    for trial, o in runs
                ],
            }
        )
    points.sort(key=lambda point: -_mean(point, "val", metric))
    private = any(shown.promises(facts) for o in outcomes for facts in (o.privacy, o.local_privacy))
    begun = [o.terms for o in outcomes if o.terms is not None or o.status == "done"]
    together = None if any(o.status == "waiting" for o in outcomes) else cost_of(begun)
    return {"ranked_by": metric, "private": private, "together": together, "points": points}


def _epsilons(central: shown.Facts | None) -> dict[str, float | None]:
    """Of a point's worst run, central: of the deployment where one is simulated, and of the run; None is infinite."""
    if central is None:
        return {"epsilon": None, "run_epsilon": None}
    whole, own = shown.figures(central)
    return {"epsilon": shown.finite(whole), "run_epsilon": shown.finite(own)}


def _is_private(trial: Trial) -> bool:
    mechanisms = ("central_privacy_mechanism", "local_privacy_mechanism")
    return any(trial.config.option(name) not in ("none", "norm_clipping_only") for name in mechanisms)


def title_of(results: Mapping[str, Any]) -> str:
    metric = words_of(results["ranked_by"])
    return f"Ranked by {metric} on val, mean ± standard deviation over seeds; test took no part in the ranking"


def words_of(metric: str) -> str:
    """A metric's name as it is written in a table."""
    return metric.replace("_", " ").replace(" ap", " AP").replace(" f1", " F1")


def table_of(results: Mapping[str, Any], also: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of points, as text. also: metrics on test to show beside the ranked one."""
    metric = results["ranked_by"]
    cells = [("val", metric), ("test", metric), *(("test", name) for name in also if name != metric)]
    headings = ["point", "runs", *(f"{partition} {words_of(name)}" for partition, name in cells), "epsilon", "min/run"]
    rows = []
    for point in results["points"]:
        rows.append(
            [
                point["point"],
                f"{point['num_done']}/{point['num_runs']}",
                *(plus_minus(point[partition].get(name)) for partition, name in cells),
                point["epsilon_shown"],
                "-" if point["seconds"] is None else f"{point['seconds'] / 60:.1f}",
            ]
        )
    return headings, rows


def notes_of(results: Mapping[str, Any]) -> list[str]:
    """Sentences that must stand below the table."""
    notes = [CAVEAT] if results["private"] else []
    notes += [sentence_of(results["together"])] if results["together"] else []
    notes += dict.fromkeys(sentence for point in results["points"] for sentence in point["epsilon_legend"])
    missing = sum(point["num_runs"] - point["num_done"] for point in results["points"])
    return [*notes, f"{missing} runs are not done; their seeds are missing from the means."] if missing else notes


def _spreads(rows: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: spread(row.get(name) for row in rows) for name in names}


def spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation (over n - 1) of the values that are numbers; one has no deviation."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    deviation = statistics.stdev(found) if len(found) > 1 else None
    return {"mean": statistics.fmean(found) if found else None, "std": deviation}


def _mean(point: Mapping[str, Any], partition: str, metric: str) -> float:
    value = point[partition].get(metric, {}).get("mean")
    return -math.inf if value is None else float(value)


def plus_minus(values: Mapping[str, float | None] | None, digits: str = ".3f") -> str:
    """Mean and deviation (``spread``) as they are written in a table; ``-`` without a mean."""
    if values is None or values["mean"] is None:
        return "-"
    deviation = "" if values["std"] is None else f" ± {values['std']:{digits}}"
    return f"{values['mean']:{digits}}{deviation}"


def _csv(trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> str:
    rows = []
    for trial, outcome in zip(trials, outcomes):
        row: dict[str, Any] = {"point": trial.point, "setting": trial.setting, **trial.varied, "seed": trial.seed}
        row |= {"status": outcome.status, "seconds": outcome.seconds, **_shown(outcome)}
        row |= {f"val/{name}": value for name, value in outcome.val.items()}
        row |= {f"test/{name}": value for name, value in outcome.test.items()}
        rows.append({**row, "run": f"runs/{trial.name}"})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _shown(outcome: Outcome) -> dict[str, str | None]:
    """Columns of a run's epsilon: rounded up, ``infinite`` where nothing holds, empty where none was asked for."""
    if not shown.promises(outcome.privacy) or outcome.privacy is None:
        return {"epsilon": None, "run_epsilon": None, "epsilon_marks": None}
    whole, own = shown.figures(outcome.privacy)
    return {
        "epsilon": shown.show(whole),
        "run_epsilon": shown.show(own),
        "epsilon_marks": shown.marks_of(outcome.privacy),
    }


def _markdown(text: str) -> str:
    """Text in one cell of a table: it ends neither the cell nor the row, and starts no element."""
    return cell(text).replace("\\", r"\\").replace("|", r"\|").replace("<", "&lt;")
