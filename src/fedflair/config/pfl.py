"""What pfl-research's FLAIR benchmark calls its options, and what becomes of each of them here.

Its files load as they stand (``options.py``); with ``like: pfl``, in a file or on the command line, its names are taken
there too, and so are its defaults where they mean another benchmark. What else ``like: pfl`` means stands in
docs/reproducing.md. Names, defaults and meanings are those of the benchmark beside pfl-research 0.6.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from fedflair.config.train_config import GROUPS
from fedflair.errors import ConfigError


@dataclass(frozen=True)
class Renamed:
    """One of ours under another name. values: what it is called here, by what it is there; others stay as they are.

    otherwise: what all other values are here, where they are not the same.
    """

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)
    otherwise: Any = None


@dataclass(frozen=True)
class Ignored:
    """One that nothing follows from here."""

    why: str


@dataclass(frozen=True)
class Refused:
    """One that something would follow from, which cannot be had. why: with the remedy."""

    why: str


_LOADER = Ignored("images are read by fedflair's own threads")
_NO_REPLACEMENT = Refused(
    "a user drawn twice would count twice in a cohort (pfl's has one in 38 % of cohorts of 200 of 41,131), which no "
    "accountant here covers; use fixed or poisson"
)
_OTHER_MEAN = "leaves out labels without positives here, which pfl counts as 0; adapt on another metric"

OPTIONS: Mapping[str, Renamed | Ignored | Refused] = {
    "model_name": Renamed("model"),
    "weight_decay": Renamed("central_weight_decay"),
    "scaffold_use_gradient_as_control_variate": Renamed("scaffold_option", {True: 1, False: 2}),
    "scaffold_states_dir": Renamed("scaffold_states", {None: "memory"}, otherwise="disk"),
    "adafedprox_decrease_mu_after_consecutive_improvements": Renamed("adafedprox_decrease_after"),
    "scaffold_population": Ignored("the training clients are counted"),
    "adafedprox_metric_is_from_central_evaluation": Ignored("adafedprox_metric_name says where it is measured"),
    "add_all_arguments": Ignored("every option is always there"),
    "weight_by_samples": Ignored("pfl's FLAIR script does nothing with it; --weighting num_examples weighs so"),
    "save_model_path": Ignored("models are kept in the run's own folder, which --run names"),
    "restore_model_path": Refused(
        "fedflair goes on from checkpoints of its own (--resume); give the weights alone as --pretrained_weights FILE"
    ),
    "local_eval_batch_size": Ignored("no score depends on it"),
    "scheduling_base_weight_multiplier": Ignored("fedflair spreads clients over workers by its own measure of work"),
    "multiprocessing_sharing_strategy": _LOADER,
    "dataloader_*": _LOADER,
}
# Values of options that are called alike.
VALUES: Mapping[str, Mapping[Any, Any]] = {
    "dataset": {"flair_pytorch": "flair"},
    # pfl's script clips at 10 whatever its option says.
    "local_max_grad_norm": {None: 10.0},
    "local_privacy_mechanism": {"privunit": Refused("fedflair has no privunit; use gaussian or laplace")},
    "cohort_sampling": {"random": _NO_REPLACEMENT, "with_replacement": _NO_REPLACEMENT},
    # Each label has all images there, so that both of its means are over all pairs of image and label.
    "adafedprox_metric_name": {
        "Central val | micro loss": "val/loss",
        "Central val | macro loss": "val/loss",
        "Central val | micro accuracy": "val/micro_accuracy",
        "Central val | macro accuracy": "val/micro_accuracy",
        "Central val | micro precision": "val/micro_precision",
        "Central val | micro recall": "val/micro_recall",
        **{
            f"Central val | {name}": Refused(f"{name} {_OTHER_MEAN}")
            for name in ("macro precision", "macro recall", "macro AP", "micro AP")
        },
    },
}
# What is meant by an option that is not given, where fedflair's own default is another benchmark.
DEFAULTS: Mapping[str, Any] = {
    "population": 10_000_000,
    "allow_large_delta": True,
    "min_separation": 48,
    "scaffold_option": 1,
}
_MOST_DIGITS = 100
# An option's name -> its type as it is written.
TYPES: Mapping[str, str] = {
    option.name: str(option.type) for group in GROUPS.values() for option in dataclasses.fields(group)
}


@dataclass(frozen=True)
class Translated:
    """options: under our names, with our values. notes: a line for each that is ignored. foreign: any was pfl's."""

    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    foreign: bool = False


def is_foreign(name: str) -> bool:
    """Whether an option is pfl's and none of ours."""
    return _entry(name) is not None


def translated(options: Mapping[str, Any]) -> Translated:
    """What options mean that may be pfl's or ours; unknown names stay. Raises ConfigError for what cannot be had."""
    ours: dict[str, Any] = {}
    notes: list[str] = []
    foreign = False
    for name, value in options.items():
        entry = _entry(name)
        foreign = foreign or entry is not None
        if isinstance(entry, Renamed):
            if entry.name in options:
                raise ConfigError(
                    f"{name}: given together with {entry.name}, which is the same here; drop one of the two"
                )
            ours[entry.name] = _value(entry.name, _renamed(entry, value))
        elif isinstance(entry, Ignored):
            notes.append(f"{name}: ignored: {entry.why}")
        elif isinstance(entry, Refused):
            if not _is_none(value):
                raise ConfigError(f"{name}: {entry.why}")
        else:
            ours[name] = _value(name, value)
    return Translated(ours, tuple(notes), foreign)


def translated_words(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """(a command line in our words, notes). Raises ConfigError as ``translated`` does."""
    out: list[str] = []
    notes: tuple[str, ...] = ()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.removeprefix("--").partition("=")
        known = word.startswith("--") and (_entry(option) is not None or option in TYPES)
        if not known or (not equals and (not rest or rest[0].startswith("--"))):
            out.append(word)
            continue
        text = value if equals else rest.pop(0)
        found = translated({option: text})
        notes += found.notes
        for name, given in found.options.items():
            # What means the same here stays as it was typed, for the parser to judge.
            out += [f"--{name}={text if given == text else _word(given)}"]
    return out, notes


def with_defaults(below: Mapping[str, Any], given: Mapping[str, Any]) -> Translated:
    """Options of a file and those beside it, which win; under like: pfl, over what pfl means where nothing is said."""
    options = {**below, **given}
    if options.get("like") != "pfl":
        return Translated(options)
    options = {**DEFAULTS, **options}
    notes: tuple[str, ...] = ()
    if options.get("algorithm_name") == "adafedprox" and "mu" not in given:
        # The mu in its files is fedprox's.
        options["mu"] = 0.0
    mechanism = options.get("central_privacy_mechanism", "none")
    if mechanism == "laplace" and "central_order" not in given and options.pop("central_order", None) is not None:
        notes = (f"central_order: ignored: pfl reads it for norm_clipping_only alone, and {mechanism} has its own",)
    return Translated(options, notes)


def _entry(name: Any) -> Renamed | Ignored | Refused | None:
    if isinstance(name, str) and name.startswith("dataloader_"):
        return OPTIONS["dataloader_*"]
    return OPTIONS.get(name)


def _renamed(entry: Renamed, value: Any) -> Any:
    if entry.otherwise is not None:
        return entry.values[None] if _is_none(value) else entry.otherwise
    flag = _flag(value)
    return entry.values.get(flag, value) if isinstance(flag, bool) else value


def _value(name: str, value: Any) -> Any:
    """A value of an option of ours as its type has it, where it is written in another way."""
    kind = TYPES.get(name, "")
    if _is_none(value) and (value is None or "None" in kind or None in VALUES.get(name, {})):
        value = None
    if isinstance(value, str | None) and value in VALUES.get(name, {}):
        value = VALUES[name][value]
        if isinstance(value, Refused):
            raise ConfigError(f"{name}: {value.why}")
    if isinstance(value, float | str) and kind.startswith(("int", "float")):
        number = _number(value, whole=kind.startswith("int"))
        return value if number is None else number
    return _flag(value) if kind == "bool" else value


def _number(value: float | str, *, whole: bool) -> int | float | None:
    """A number, or the one in a text, as 1e7 is to YAML; None where there is none, or none that is ``whole``."""
    try:
        number = Decimal(str(value).strip().replace(".inf", "inf"))
    except InvalidOperation:
        return None
    if not whole:
        return float(number)
    # The digits of 1e999999999 would fill the memory.
    small = number.is_finite() and number.adjusted() < _MOST_DIGITS
    return int(number) if small and number == number.to_integral_value() else None


def _flag(value: Any) -> Any:
    words = {"yes": True, "true": True, "no": False, "false": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.lower() in ("none", "null"))


def _word(value: Any) -> str:
    """A value as our command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return (".inf" if value > 0 else "-.inf") if isinstance(value, float) and math.isinf(value) else str(value)
