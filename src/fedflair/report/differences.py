"""In which options groups of runs differ: only those, and only where they have an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedflair.config.effects import has_effect
from fedflair.config.options import build_config
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.report.data import Group
from fedflair.runs.provenance import FREE

ABSENT = "–"
# Where a run lies and how fast it goes is not what it is.
_BESIDE = frozenset((*FREE, "run", "data_path"))
_OPEN = (None, "auto")


@dataclass(frozen=True)
class Options:
    """The options of a group: of its first run, and the seeds of all."""

    group: Group

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """By name; without those that have no effect, as far as that can be told."""
        options, config = dict(self.group.runs[0].options), self._config
        if config is not None:
            # What an earlier version did not know yet has its default.
            options = {n: value for n, value in options.items() if n not in NAMES} | {
                n: config.option(n) for n in NAMES if has_effect(config, n)
            }
        kept = {name: value for name, value in options.items() if name not in _BESIDE}
        return kept | ({"seed": self.seeds} if "seed" in kept else {})

    @property
    def seeds(self) -> str:
        return ", ".join(dict.fromkeys(str(run.options.get("seed")) for run in self.group.runs))

    def shown(self, name: str) -> str:
        """An option's value as text; what it came to where it was left open."""
        if name not in self.values:
            return ABSENT
        value, first = self.values[name], self.group.runs[0]
        resolved: Any = (first.environment[-1] if first.environment else {}).get("resolved")
        if value in _OPEN and isinstance(resolved, Mapping) and resolved.get(name) is not None:
            value = resolved[name]
        return _text(value)

    @cached_property
    def _config(self) -> TrainConfig | None:
        known = {name: value for name, value in self.group.runs[0].options.items() if name in NAMES}
        try:
            return build_config(known, self.group.name)
        except ConfigError:
            # Of an earlier version, or with a plugin that is not here: its options are taken as they are.
            return None


def differing(options: Sequence[Options]) -> list[str]:
    """Names of the options in which these differ, in the order of the configuration.

    One that has an effect in some of them only does not differ by that: the option that gives it one does.
    """
    names = dict.fromkeys(name for one in options for name in one.values)
    order = {name: position for position, name in enumerate(NAMES)}
    found = [name for name in names if len({_text(one.values[name]) for one in options if name in one.values}) > 1]
    return sorted(found, key=lambda name: order.get(name, len(order)))


def table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, a row a group: its name, and its values of the options that differ."""
    options = [Options(group) for group in groups]
    names = differing(options)
    return ["run", *names], [[one.group.name, *map(one.shown, names)] for one in options]


def same_store(one: Group, other: Group) -> bool:
    """Whether all their runs are known to be scored on the same images."""
    stores = {run.store for group in (one, other) for run in group.runs}
    return len(stores) == 1 and None not in stores


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 1000:
        return f"{value:,}"
    return "none" if value is None else str(value)
