"""What a sweep runs: settings x grid or random samples x seeds, every configuration built before any of them trains.

A sweep file, in YAML; every part is optional but one that varies something:

    args_config: demo                      the configuration to start from, as for fedflair train
    options: {cohort_size: 10}             options of all runs
    settings:                              named sets of options, one after the other
      iid: {dataset: flair_iid}
      natural: {}
    grid:                                  every combination of these values
      learning_rate: [0.1, 0.5]
    random:                                or that many draws from these distributions
      num_samples: 10
      learning_rate: {log_uniform: [0.01, 1.0]}
    epsilons: [0.5, 2, 8, none]            every point with each of these privacy budgets; none is no mechanism
    seeds: [0, 1, 2]                       or 3, which are the same
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedflair.config.effects import refuse_without_effect
from fedflair.config.options import build_config, read_options, unknown_option
from fedflair.config.pfl import translated, with_defaults
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.config.yaml_text import parse_yaml, read_yaml
from fedflair.errors import ConfigError
from fedflair.sampling import stream
from fedflair.sweep.budgets import budgets, check_epsilons, epsilons_of, with_mechanism

PARTS = ("args_config", "options", "settings", "grid", "random", "epsilons", "seeds")
NOT_SWEPT = ("seed", "run", "resume")


@dataclass(frozen=True)
class SweepSpec:
    """The parts of a sweep file. epsilons: budgets, as numbers, or ``none``. seeds: which, or how many from 0 on.

    overrides: options of the command line, which win over every part.
    notes: what is to be said of options in it that are pfl-research's.
    """

    args_config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    random: Mapping[str, Any] = field(default_factory=dict)
    epsilons: Sequence[Any] = ()
    seeds: Sequence[int] | int = (0,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. point: the name that the runs of its seeds share. varied: what the point sets.

    asked: its budget, or ``none``, where the sweep has epsilons. curve: the name that the points of all budgets share.
    """

    point: str
    setting: str | None
    varied: Mapping[str, Any]
    seed: int
    name: str
    config: TrainConfig
    asked: float | Literal["none"] | None = None
    curve: str = ""


def read_sweep_file(path: Path) -> dict[str, Any]:
    """The parts in a sweep file. Raises ConfigError where it has others, or is none."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such sweep file")
    try:
        parts = read_yaml(path)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    if not isinstance(parts, dict) or not set(parts) <= set(PARTS):
        raise ConfigError(f"{path}: a sweep file has the parts {', '.join(PARTS)}, and no other")
    return parts


def sweep_spec(given: dict[str, Any]) -> SweepSpec:
    """The sweep that a file and the command line describe together; the command line wins."""
    source = given.pop("sweep_config", None)
    parts = read_sweep_file(Path(source)) if source else {}
    for name in ("options", "settings", "grid", "random", "epsilons", "seeds"):
        if parts.get(name) is None:
            parts.pop(name, None)
    if isinstance(parts.get("settings"), dict):
        parts["settings"] = {name: options or {} for name, options in parts["settings"].items()}
    notes = _in_our_names(parts)
    grid = [_grid_values(text) for text in given.pop("grid", None) or []]
    if grid:
        parts["grid"] = {**parts.get("grid", {}), **dict(grid)}
    if "epsilons" in given:
        parts["epsilons"] = epsilons_of(_values(given.pop("epsilons"), "epsilons"))
    if "seeds" in given:
        parts["seeds"] = _seeds(given.pop("seeds"))
    if "args_config" in given:
        parts["args_config"] = given.pop("args_config")
    return SweepSpec(**parts, overrides=given, notes=notes)


def _in_our_names(parts: dict[str, Any]) -> tuple[str, ...]:
    """Makes pfl-research's names and values ours in the options of a file, in place; what is to be said of them."""
    notes: tuple[str, ...] = ()
    settings = parts.get("settings")
    for where in (parts, settings if isinstance(settings, dict) else {}):
        for name in ("options",) if where is parts else tuple(where):
            if isinstance(where.get(name), dict):
                read = translated(where[name])
                where[name], notes = read.options, notes + read.notes
    return notes


def _seeds(text: str) -> int | list[Any]:
    """How many seeds, or which: what has a comma is a list."""
    values = _values(text.rstrip(","), "seeds")
    return values if "," in text or len(values) != 1 or not isinstance(values[0], int) else values[0]


def plan_sweep(spec: SweepSpec) -> list[Trial]:
    """The runs, in the order they are made: by seed, then by point, so that every point has a score early.

    Raises ConfigError, naming the part and the option, for anything that could not be run or compared.
    """
    _check_parts(spec)
    base = read_options(Path(spec.args_config)) if spec.args_config else {}
    trials = []
    for seed in seeds_of(spec):
        for setting, options in spec.settings.items() or [(None, {})]:
            for sample, own in _samples(spec):
                curve = _point_name(setting, sample, own) if own or setting is not None else ""
                below = {**base, **spec.options, **options}
                for asked, budget in budgets(spec.epsilons, {**below, **own, **spec.overrides}):
                    varied = {**own, **budget}
                    name = _point_name(setting, sample, varied)
                    given = with_defaults(
                        with_mechanism(below) if asked else below, {**spec.overrides, **varied, "seed": seed}
                    ).options
                    config = build_config(given, f"sweep: {name}")
                    file = f"{_file_name(name)}-seed{seed}"
                    trials.append(Trial(name, setting, varied, seed, file, config, asked, curve))
    _check_comparable(trials)
    _check_effects(spec, trials)
    return trials


def seeds_of(spec: SweepSpec) -> Sequence[int]:
    """The seeds that each point is run with. Raises ConfigError where they are none."""
    seeds = spec.seeds
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ConfigError(f"sweep: seeds: {seeds} is impossible; give how many, at least 1, or a list: [{seeds}]")
        return range(seeds)
    if not isinstance(seeds, Sequence) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise ConfigError("sweep: seeds: must be a list of whole numbers of at least 0")
    if len(set(seeds)) < len(seeds):
        raise ConfigError("sweep: seeds: one is given twice; a seed can be run once")
    return seeds


def _grid_values(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    if not equals:
        raise ConfigError(f"grid: {text}: must be an option and its values: option=value,value,...")
    return name, _values(values, f"grid: {name}")


def _values(text: str, where: str) -> list[Any]:
    try:
        values: list[Any] = parse_yaml(f"[{text}]")
    except ValueError as error:
        raise ConfigError(f"{where}: {text}: must be values with commas between them") from error
    return values


def _check_parts(spec: SweepSpec) -> None:
    for where, part in (("settings", spec.settings), ("random", spec.random)):
        if not isinstance(part, Mapping):
            raise ConfigError(f"sweep: {where}: must be a mapping")
    ranges = {name: value for name, value in spec.random.items() if name != "num_samples"}
    parts = {"options": spec.options, "grid": spec.grid, "random": ranges, "command line": spec.overrides}
    parts |= {f"settings: {name}": options for name, options in spec.settings.items()}
    for where, names in parts.items():
        if not isinstance(names, Mapping):
            raise ConfigError(f"sweep: {where}: must be a mapping of options to values")
        for name in names:
            if name in NOT_SWEPT:
                raise ConfigError(f"sweep: {where}: {name} is set for each run; seeds are given as seeds: [0, 1, 2]")
            if name not in NAMES:
                raise ConfigError(f"sweep: {where}: {unknown_option(str(name))}")
    for name in spec.overrides:
        if name in spec.grid or name in ranges:
            raise ConfigError(f"{name}: given on the command line, and varied by the sweep; drop one of the two")
    check_epsilons(spec.epsilons, (*spec.grid, *ranges), spec.overrides)
    for name, values in spec.grid.items():
        if not isinstance(values, list) or not values or len({repr(value) for value in values}) < len(values):
            raise ConfigError(f"sweep: grid: {name}: must be a list of different values")
    if spec.grid and spec.random:
        raise ConfigError("sweep: grid: given together with random; drop one of the two")
    if spec.random and not _is_count(spec.random.get("num_samples")):
        raise ConfigError("sweep: random: num_samples must say how many draws to make, at least 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_comparable(trials: Sequence[Trial]) -> None:
    metrics = sorted({trial.config.evaluation.best_metric for trial in trials})
    if len(metrics) > 1:
        raise ConfigError(
            f"best_metric: a sweep is ranked by one metric on val, and its runs have {' and '.join(metrics)}; "
            "set one in options"
        )
    for name, count in Counter(trial.name for trial in trials).items():
        if count > 1:
            raise ConfigError(f"sweep: two runs would both be called {name}; rename a setting, or drop one value")


def _check_effects(spec: SweepSpec, trials: Sequence[Trial]) -> None:
    """What a sweep varies, or was given on the command line, must make a difference to one of its points at least."""
    configs = [trial.config for trial in trials]
    refuse_without_effect(spec.overrides, configs)
    # A value that switches a mechanism off is one of several: that it is varied is what was given.
    varied = dict.fromkeys(name for name in (*spec.grid, *spec.random) if name != "num_samples")
    refuse_without_effect(dict.fromkeys(varied, "varied"), configs, "sweep: ")


def _samples(spec: SweepSpec) -> list[tuple[int | None, dict[str, Any]]]:
    """What each point sets: (number of a random sample, options)."""
    if not spec.random:
        combinations = itertools.product(*spec.grid.values())
        return [(None, dict(zip(spec.grid, values))) for values in combinations]
    ranges = {name: value for name, value in spec.random.items() if name != "num_samples"}
    return [
        (k, {name: _draw(name, value, stream(0, "sweep", k, name)) for name, value in ranges.items()})
        for k in range(spec.random["num_samples"])
    ]


def _draw(name: str, distribution: Any, generator: np.random.Generator) -> Any:
    """One value; sample k of an option is the same whatever else is drawn, so that a sweep can be extended."""
    kind, arguments = next(iter(distribution.items())) if _is_distribution(distribution) else (None, [])
    if kind == "choice" and arguments:
        return arguments[int(generator.integers(len(arguments)))]
    numbers = len(arguments) == 2 and all(isinstance(x, int | float) and math.isfinite(x) for x in arguments)
    if numbers and arguments[0] < arguments[1] and (kind != "log_uniform" or arguments[0] > 0):
        return _RANGES[str(kind)](generator, *arguments)
    raise ConfigError(
        f"sweep: random: {name}: must be {{choice: [values]}}, or {{uniform: [low, high]}}, or int_uniform, or "
        "log_uniform with low above 0"
    )


def _is_distribution(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) == 1
        and next(iter(value)) in (*_RANGES, "choice")
        and isinstance(next(iter(value.values())), list)
    )


_RANGES: dict[str, Callable[[np.random.Generator, Any, Any], Any]] = {
    "uniform": lambda generator, low, high: _short(generator.uniform(low, high)),
    "log_uniform": lambda generator, low, high: _short(math.exp(generator.uniform(math.log(low), math.log(high)))),
    "int_uniform": lambda generator, low, high: int(generator.integers(int(low), int(high), endpoint=True)),
}


def _short(value: float) -> float:
    """Four significant digits: what a table shows is what was run."""
    return float(f"{value:.4g}")


def _point_name(setting: str | None, sample: int | None, varied: Mapping[str, Any]) -> str:
    words = [] if setting is None else [str(setting)]
    if sample is not None:
        words.append(f"sample{sample}")
    return " ".join([*words, *(f"{name}={value}" for name, value in varied.items())]) or "run"


def _file_name(name: str) -> str:
    """A point's name as part of a file name; what had to be cut is told apart by a hash."""
    safe = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", name).lstrip(".-")
    if safe == name.replace(" ", "_") and len(safe) <= 120:
        return safe
    return f"{safe[:110]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
