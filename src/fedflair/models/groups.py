"""Which of a network's trained parameters belong together where they are clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from fedflair.errors import ConfigError
from fedflair.models.trainable import head_of, units_of


def trained_runs(module: nn.Module, by: str) -> list[tuple[str, int]]:
    """(group, number of parameters) of each trained tensor, in the order in which they are laid out in one vector.

    by: ``blocks`` of layers, as the network strings them together, by name; or ``kinds``: head, weights, and vectors
        (scales, shifts and biases). Raises ConfigError where all are of one group, so that there is nothing to group.
    """
    group_of = _GROUPINGS[by](module)
    runs = [(group_of[id(p)], p.numel()) for p in module.parameters() if p.requires_grad]
    names = {name for name, _ in runs}
    if len(names) < 2:
        raise ConfigError(
            f"clipping_groups: {by} puts all that is trained into one group, {names.pop()}; leave it out, or train "
            "more than that"
        )
    return runs


def _blocks(module: nn.Module) -> dict[int, str]:
    names = {id(child): name for name, child in module.named_modules()}
    return {id(p): names[id(unit)] for unit in units_of(module) for p in unit.parameters()} | _loose(module)


def _loose(module: nn.Module) -> dict[int, str]:
    """Parameters of the network itself, as the class token of a vision transformer."""
    return {id(p): name for name, p in module.named_parameters(recurse=False)}


def _kinds(module: nn.Module) -> dict[int, str]:
    kinds = {id(p): "vectors" if p.ndim < 2 else "weights" for p in module.parameters()}
    return kinds | {id(p): "head" for p in head_of(module).parameters()}


_GROUPINGS: dict[str, Callable[[nn.Module], dict[int, str]]] = {"blocks": _blocks, "kinds": _kinds}


def numbered(runs: list[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """(names in the order in which they first occur, (number of the name, size) with neighbours of one name joined)."""
    names = tuple(dict.fromkeys(name for name, _ in runs))
    return names, tuple(_joined([(names.index(name), size) for name, size in runs]))


def _joined(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current, total = runs[0][0], 0
    for number, size in runs:
        if number != current:
            yield current, total
            current, total = number, 0
        total += size
    yield current, total
