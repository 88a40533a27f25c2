"""``fedflair evaluate``: scores the best or the last model of a finished or stopped run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fedflair.errors import UsageError
from fedflair.privacy.ledger import coverage
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console, table
from fedflair.system.terminal import say

MOST_LABELS_SHOWN = 50
NAMES = {"micro_ap": "AP", "micro_precision": "precision", "micro_recall": "recall", "micro_f1": "F1"}
NAMES |= {"micro_accuracy": "accuracy"}


def evaluate(
    *,
    run: Path,
    partition: Literal["train", "val", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    data_path: Path | None = None,
    metrics: Literal["exact", "pfl"] = "exact",
    per_user: bool = False,
    personalise_steps: int = 0,
    personalise_fraction: float = 0.5,
    personalise_learning_rate: float | None = None,
    json: bool = False,
) -> None:
    """Score a run's model on a partition, or on each of its users, and print the metrics.

    Args:
        run: The run folder.
        partition: The partition to score.
        checkpoint: The model that was best on val, or the one of the last round that was saved.
        data_path: Another store with the same labels; the run's own if not given.
        json: Print JSON, with the AP of every label, instead of tables.
        metrics: Exact ones, or those of pfl-research's benchmark, to lay beside published figures: AP over 200
            thresholds, macro values over all labels, 0 for those without positives.

    Single users:
        per_user: Score every user of its own; a file per_user_PARTITION.jsonl in the run folder has them all.
        personalise_steps: Also tune the model on each user's own images by that many steps (with per_user); 0 is none.
        personalise_fraction: Share of a user's images to tune on; both models are scored on the rest.
        personalise_learning_rate: Learning rate of those steps; the run's local_learning_rate if not given.
    """
    if personalise_steps and not per_user:
        raise UsageError("personalise_steps: only users can be personalised; add --per_user")
    if per_user and metrics != "exact":
        raise UsageError("metrics: pfl-research has none of each user; drop --per_user, or --metrics pfl")
    # Here, as networks take a second to load.
    from fedflair.evaluation.run import score_run, score_users_of_run

    if per_user:
        summary = score_users_of_run(
            run,
            partition,
            checkpoint,
            data_path,
            num_steps=personalise_steps,
            fraction=personalise_fraction,
            learning_rate=personalise_learning_rate,
        )
        if json:
            say(dumps(summary))
        else:
            _print_user_tables(_title(summary), summary)
        return
    scores = score_run(run, partition, checkpoint, data_path, metrics)
    if json:
        facts = {**scores.facts, **scores.metrics, "label_ap": scores.label_ap}
        say(dumps(facts))
    else:
        by_label = "AP by label, over 200 thresholds" if metrics == "pfl" else "AP by label"
        _print_tables(_title(scores.facts), scores.metrics, by_label, scores.label_ap)


def _title(facts: Mapping[str, Any]) -> str:
    title = f"{facts['run']}: {facts['partition']}, {facts['checkpoint']} model"
    if "metrics" in facts:
        title += f"; metrics are {facts['metrics']}"
    if coverage.FIELD in facts:
        title += " (computed without noise: the run's epsilon does not cover it)"
    if "kernels" in facts:
        title += f" (computed with {facts['kernels']})"
    return title


def _print_tables(title: str, metrics: Mapping[str, float], by_label: str, labels: Mapping[str, float | None]) -> None:
    console = Console()
    values = [
        (name.replace("_", " "), f"{int(value):,}" if name.startswith("num_") else f"{value:.4f}")
        for name, value in metrics.items()
    ]
    console.print(table(title, ("metric", "value"), values))
    ranked = sorted(labels.items(), key=lambda item: -1.0 if item[1] is None else item[1], reverse=True)
    shown = [(name, "no positives" if ap is None else f"{ap:.4f}") for name, ap in ranked[:MOST_LABELS_SHOWN]]
    console.print(table(by_label, ("label", "AP"), shown))
    if len(ranked) > MOST_LABELS_SHOWN:
        console.say(f"and {len(ranked) - MOST_LABELS_SHOWN:,} labels more: --json has all")


def _print_user_tables(title: str, summary: Mapping[str, Any]) -> None:
    """Tables of the distribution over users, by user size, and of what personalisation gains."""
    from fedflair.metrics.user_summary import SHOWN_BY_SIZE

    console = Console()
    headings = ["metric of a user", "mean", "std", "first quartile", "median", "third quartile", "worst tenth"]
    rows = [[_name(name), *map(_number, values.values())] for name, values in summary["distribution"].items()]
    console.print(table(f"{title}, {summary['num_users']:,} users", headings, rows))
    tuned = summary["personalisation"]
    columns, title = list(SHOWN_BY_SIZE), "Means by number of images of a user"
    if tuned is not None:
        title += "; of the global and the personalised model on the held-out images"
        columns += [f"{model}_micro_ap" for model in ("global", "personalised")]
    rows = [
        [row["images"], f"{row['num_users']:,}", *(_number(row[name]) if name in row else "-" for name in columns)]
        for row in summary["by_size"]
    ]
    console.print(table(title, ["images", "users", *map(_name, columns)], rows))
    if tuned is not None:
        _print_personalisation(console, tuned)


def _print_personalisation(console: Console, tuned: Mapping[str, Any]) -> None:
    from fedflair.evaluation.personalise import FEWEST_IMAGES

    title = (
        f"After {tuned['num_steps']} local steps at learning rate {tuned['learning_rate']:g} on "
        f"{tuned['fraction']:.0%} of a user's images: both models on the held-out rest, {tuned['num_users']:,} users"
    )
    headings = ["metric of a user", "global", "personalised", "gain", "standard error", "users up", "users down"]
    rows = []
    for name, gain in tuned["gain"].items():
        means = (_number(tuned[model][name]["mean"]) for model in ("global", "personalised"))
        shares = (f"{gain['share_risen']:.0%}", f"{gain['share_fallen']:.0%}")
        rows.append([_name(name), *means, f"{gain['mean']:+.4f}", _number(gain["standard_error"]), *shares])
    console.print(table(title, headings, rows))
    console.say(f"{tuned['num_users_left_out']:,} users with fewer than {FEWEST_IMAGES} images are left out.")


def _number(value: float) -> str:
    return f"{value:.4f}"


def _name(column: str) -> str:
    for name, shown in NAMES.items():
        if column.endswith(name):
            return f"{column.removesuffix(name).rstrip('_')} {shown}".strip()
    return column.replace("_", " ")
