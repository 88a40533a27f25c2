"""Plugins: people's modules that add algorithms, mechanisms, models, weights or compressions to the tables.

A plugin is imported and puts its functions into the literal dicts, as ``docs/extending.md`` shows; nothing registers
itself otherwise. Every process of a run imports the same modules before it looks anything up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from types import ModuleType
from typing import Any

from fedflair.config.names import OWN_NAMES, PLUGIN_GROUP, unknown_name
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.algorithms import ALGORITHMS
from fedflair.federated.algorithms.base import CLIENT_WEIGHTS
from fedflair.federated.compression import COMPRESSIONS
from fedflair.federated.server import SERVER_OPTIMIZERS
from fedflair.models import MODELS
from fedflair.privacy.mechanisms import LOCAL_MECHANISMS, MECHANISMS
from fedflair.system.own_code import file_digest, installed_modules, own_module

# An option that is a name -> the table that it is looked up in.
TABLES: Mapping[str, MutableMapping[str, Any]] = {
    "model": MODELS,
    "algorithm_name": ALGORITHMS,
    "weighting": CLIENT_WEIGHTS,
    "compression": COMPRESSIONS,
    "central_optimizer": SERVER_OPTIMIZERS,
    "central_privacy_mechanism": MECHANISMS,
    "local_privacy_mechanism": LOCAL_MECHANISMS,
}
_OWN: Mapping[str, Mapping[str, Any]] = {option: dict(table) for option, table in TABLES.items()}


def load_plugins(config: TrainConfig) -> None:
    """Imports the configuration's plugins, and those of installed packages where a name needs one.

    Raises ConfigError for a module that cannot be imported or takes the place of something of fedflair's own, and for a
    name that no table has.
    """
    for name in config.run.plugins:
        _import(name, "plugins")
    if _unknown(config):
        for name, package in installed_modules(PLUGIN_GROUP).items():
            _import(name, f"plugins of the installed {package}")
    for option in _unknown(config):
        raise ConfigError(
            unknown_name(option, config.option(option), TABLES[option], "; a plugin's needs --plugins MODULE")
        )


def plugin_code(config: TrainConfig) -> dict[str, str] | None:
    """What says that plugins are still the same: SHA-256 of their files by module; None where the run has none.

    Of those that the configuration names, and of the modules that what it names in a table comes from.
    """
    load_plugins(config)
    names = [option for option in TABLES if config.option(option) not in OWN_NAMES[option]]
    modules = [*config.run.plugins, *(_module_of(TABLES[option][config.option(option)]) for option in names)]
    found = {name: file_digest(sys.modules[name]) for name in sorted(set(modules)) if name in sys.modules}
    return {name: digest for name, digest in found.items() if digest is not None} or None


def own_code_of(config: TrainConfig) -> dict[str, str]:
    """Digests of the files of people's own code that the run imports: its plugins by module, its network by name."""
    plugins = plugin_code(config) or {}
    network = MODELS[config.model.model].own_code(config.model.model_type)
    return plugins if network is None else {**plugins, config.model.model_type: network}


def refuse_other_code(config: TrainConfig, digests: Mapping[str, str]) -> None:
    """Raises ConfigError where this machine's own code is not what another one computed ``digests`` of."""
    here = own_code_of(config)
    for name, digest in digests.items():
        if here.get(name) != digest:
            raise ConfigError(f"plugins: the file of {name} is another one on this machine; put the same on each")


def _unknown(config: TrainConfig) -> list[str]:
    return [option for option, table in TABLES.items() if config.option(option) not in table]


def _import(name: str, asked: str) -> ModuleType:
    module = own_module(name, asked)
    for option, own in _OWN.items():
        for known, value in own.items():
            if TABLES[option].get(known) is not value:
                TABLES[option][known] = value
                raise ConfigError(f"plugins: {name} takes the place of {option} {known}; give it a name of its own")
    return module


def _module_of(value: Any) -> str:
    """The module that a table's value was made in: a function's own, or that of the first function it holds."""
    if hasattr(value, "__module__") and callable(value):
        return str(value.__module__)
    return next((str(part.__module__) for part in vars(value).values() if callable(part)), type(value).__module__)
