"""What is said of words that no parser takes: the option and what would be right, in nobody's Python."""

from __future__ import annotations

import re

import pytest

from fedflair.cli import main
from fedflair.commands import COMMANDS
from fedflair.commands.parsers import parser_of_command
from fedflair.config.parsing import parse, type_of

PYTHONS = re.compile(r"<class|typing\.|Literal|Parser key|NoneType|Traceback|argument --|Optional\[|None\b")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train --cohort 3", "cohort: unknown option; did you mean cohort_sampling or cohort_size?"),
        ("train --cohort_sise 3", "cohort_sise: unknown option; did you mean cohort_size?"),
        ("train --cohort_siz=3", "cohort_siz: unknown option; did you mean cohort_size?"),
        ("train --cohort_size many", "cohort_size: many is impossible; it must be a whole number"),
        ("train --learning_rate fast", "learning_rate: fast is impossible; it must be a number"),
        ("train --dataset=cifar", "dataset: cifar is impossible; it must be flair or flair_iid"),
        ("train --pretrained maybe", "pretrained: maybe is impossible; it must be true or false"),
        ("train --label_subset a", "label_subset: a is impossible; it must be a list such as [a,b], or null"),
        ("train --run", "run: a value is missing; it must be a file or folder, or null"),
        ("train --cohort_size 0", "cohort_size: 0 is impossible; it must be at least 1"),
        ("train foo", "train: 'foo' belongs to no option; see fedflair train --help"),
        ("train --learning_rate 1 2", "train: '2' belongs to no option; see fedflair train --help"),
        ("train --mu 1", "mu: has no effect with algorithm_name fedavg; drop it, or give --algorithm_name fedprox (or "
         "adafedprox)"),
        ("train --dry_run --quiet", "dry_run: given together with --quiet; drop one of the two"),
        ("train --resume", "resume: name the run's folder with --run"),
        ("train --resume --run x --dry_run", "dry_run: a run that goes on is what it was when it began; drop --resume "
         "to see that"),
        ("sweep --grid mu=1", "sweep: give --output"),
        ("sweep --output x --grid mu=1", "sweep: mu: has no effect with algorithm_name fedavg; drop it, or give "
         "--algorithm_name fedprox (or adafedprox)"),
        ("sweep --output x --seeds 0", "sweep: seeds: 0 is impossible; give how many, at least 1, or a list: [0]"),
        ("audit --mu 1", "mu: unknown option; see fedflair audit --help"),
        ("audit --top_k_fraction 0.1", "top_k_fraction: has no effect on this audit (compression is none); leave it "
         "out"),
        ("epsilon --rounds 3 --delt 1e-5", "delt: unknown option; did you mean delta or deltas?"),
        ("epsilon --rounds 3 --delta 1e-5", "sampling_rate: give either --sampling_rate, or both --cohort_size and "
         "--population"),
        ("predict --thresh 3", "thresh: unknown option; did you mean threshold?"),
        ("predict", "predict: name a run folder with --run, or an exported model with --model, and not both"),
        ("evaluate --run x --partition y", "partition: y is impossible; it must be train, val or test"),
        ("describe", "describe: name the store"),
        ("ledger", "ledger: name the action and the run"),
        ("prepare --source x", "prepare: give --output"),
        ("report --json=3 x", "json: stands alone; leave out what follows the ="),
        ("options --command dance", f"command: dance is no command; it must be one of {', '.join(COMMANDS)}"),
        ("options frobnicate", "frobnicate: unknown option; see fedflair train --help"),
        ("completion ksh", "shell: ksh is impossible; it must be bash, zsh, fish or tcsh"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_2_and_what_to_type(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"fedflair: {told}\n")
    assert not PYTHONS.search(told)


def test_no_option_is_abbreviated_in_any_command() -> None:
    for name in COMMANDS:
        parser = parser_of_command(name)
        assert not parser.allow_abbrev, name
        assert parser.prog == f"fedflair {name}"


def test_help_has_a_default_where_there_is_one_and_no_types_of_python() -> None:
    for name in COMMANDS:
        shown = parser_of_command(name).format_help()
        assert not PYTHONS.search(shown), name
        assert "type:" not in shown
    train = parser_of_command("train").format_help()
    assert "--cohort_size N" in train
    assert "(default: 200)" in train
    assert "--resume {true,false}" in train
    # Under headings, those that are of training alone first.
    assert train.index("\nData: what is") < train.index("\nHardware: what computes") < train.index("\n  --dry_run")
    predict = parser_of_command("predict").format_help()
    shown, trusted = predict.index("\nWhat is shown:\n"), predict.index("\nWhat is trusted:\n")
    assert shown < predict.index("\n  --threshold X") < trusted < predict.index("\n  --allow_code")


def test_a_switch_of_a_training_takes_a_value_or_stands_alone() -> None:
    parser = parser_of_command("train")
    assert type_of(next(action for action in parser._actions if action.dest == "resume")) is bool
    assert parse(parser, ["--resume", "true", "--quiet"], defaults=False) == {"resume": True, "quiet": True}
