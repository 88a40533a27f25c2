"""What plugins add is found, held to its file, and in nobody's way."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.config.names import OWN_NAMES
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError
from fedflair.federated.algorithms.base import client_weight
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.plugins import TABLES, load_plugins, own_code_of, plugin_code, refuse_other_code
from fedflair.federated.server import Broadcast
from fedflair.federated.setup import make_setup
from fedflair.runs.provenance import Provenance
from fedflair.training.client_group import bound_update
from tests.small_runs import small_config

PLUGIN = """
from dataclasses import replace

from fedflair.federated.algorithms.base import CLIENT_WEIGHTS
from fedflair.federated.compression import COMPRESSIONS, Compression
from fedflair.federated.server import SERVER_OPTIMIZERS
from fedflair.models import MODELS
from fedflair.models.small_cnn import build
from fedflair.privacy.mechanisms import LOCAL_MECHANISMS, MECHANISMS

CLIENT_WEIGHTS["half"] = lambda num_examples, options: 0.5
COMPRESSIONS["signs"] = Compression(lambda update, options, generator: update.sign_(), lambda size, options: size // 8)
SERVER_OPTIMIZERS["plain"] = SERVER_OPTIMIZERS["sgd"]
MODELS["tiny"] = replace(MODELS["small_cnn"], build=lambda *words, **options: build(*words, **options))
LOCAL_MECHANISMS["mine"] = lambda *words: replace(LOCAL_MECHANISMS["norm_clipping_only"](*words), name="mine")


def mine(options, sampler, num_rounds, noise_seed):
    made = MECHANISMS["gaussian"](replace(options, mechanism="gaussian"), sampler, num_rounds, noise_seed)
    return replace(made, name="mine")


def odd(*words):
    made = mine(*words)

    def clip(update, bound):
        result = made.clip(update, bound)
        update.div_(2)
        return result

    return replace(made, clip=clip)


MECHANISMS["mine"] = mine
MECHANISMS["odd"] = odd
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = {option: dict(table) for option, table in TABLES.items()}
    path = tmp_path_factory.mktemp("plugins") / "many_things.py"
    path.write_text(PLUGIN)
    sys.path.append(str(path.parent))
    yield path
    sys.path.remove(str(path.parent))
    sys.modules.pop("many_things", None)
    for option, table in TABLES.items():
        table.clear()
        table.update(before[option])


@pytest.mark.parametrize("option", TABLES)
def test_fedflair_s_own_names_are_those_of_the_tables_and_of_the_help(option: str) -> None:
    assert set(OWN_NAMES[option]) == {name for name in TABLES[option] if name in OWN_NAMES[option]}
    groups = {name: type(group) for group in vars(TrainConfig()).values() for name in vars(group)}
    explained = groups[option].__doc__ or ""
    assert all(name in explained for name in OWN_NAMES[option]), option


@pytest.mark.parametrize("option", OWN_NAMES)
def test_a_name_that_nobody_has_is_told_with_the_nearest(option: str) -> None:
    nearly = OWN_NAMES[option][-1] + "x"
    with pytest.raises(ConfigError, match=rf"{option}: '{nearly}' is unknown; did you mean {OWN_NAMES[option][-1]}\?"):
        TrainConfig.of(**{option: nearly})
    asked = TrainConfig.of(**{option: nearly}, plugins=("json",))
    with pytest.raises(ConfigError, match=rf"{option}: '{nearly}' is unknown; did you mean {OWN_NAMES[option][-1]}\?"):
        load_plugins(asked)


def test_all_tables_take_names(tiny_store: Path, plugin: Path) -> None:
    names: dict[str, Any] = {"model": "tiny", "weighting": "half", "compression": "signs", "central_optimizer": "plain"}
    setup = make_setup(small_config(tiny_store, plugins=("many_things",), **names), noise_seed=0)
    assert type(setup.worker.module).__name__ == "SmallCNN"
    update = ClientUpdate(torch.tensor([0.2, -3.0]), client_weight(setup.config, 9), 9, LocalMetrics())
    bound_update(setup.worker, update, Broadcast(0, torch.zeros(2), {}, math.inf), "client")
    assert (update.delta.tolist(), update.weight) == ([1.0, -1.0], 0.5)
    names = {"local_privacy_mechanism": "mine", "model": "small_cnn"}
    local = make_setup(small_config(tiny_store, plugins=("many_things",), **names), noise_seed=0)
    assert local.worker.local_mechanism.name == "mine"
    names = {"central_privacy_mechanism": "mine", "central_epsilon": 1.0, "model": "small_cnn"}
    names |= {"central_delta": 1e-2, "noise_from_seed": True}
    central = make_setup(small_config(tiny_store, plugins=("many_things",), **names), noise_seed=0)
    assert central.mechanism.name == "mine"
    digest = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert plugin_code(central.config) == own_code_of(central.config) == {"many_things": digest}
    refuse_other_code(central.config, {"many_things": digest})
    with pytest.raises(ConfigError, match="the file of many_things is another one on this machine; put the same"):
        refuse_other_code(central.config, {"many_things": "0" * 64})
    known = Provenance({}, "", (), plugins={"many_things": digest})
    known.check_plugins({"many_things": digest, "another": "1"})
    with pytest.raises(DataError, match="the file of many_things has changed since the run began"):
        known.check_plugins(None)


@pytest.mark.parametrize("name", ["mine", "odd"])
def test_workers_elsewhere_clip_as_they_can_be_told_or_not_at_all(tiny_store: Path, plugin: Path, name: str) -> None:
    pytest.importorskip("ray")
    from fedflair.backends.ray.backend import worker_plan

    options = {"central_epsilon": 1.0, "central_delta": 1e-2, "noise_from_seed": True, "model": "small_cnn"}
    config = small_config(tiny_store, plugins=("many_things",), central_privacy_mechanism=name, **options)
    setup = make_setup(config, noise_seed=0)
    if name == "mine":
        assert worker_plan(setup, 0.0).code == plugin_code(config)
        return
    with pytest.raises(ConfigError, match="central_privacy_mechanism: odd does not clip as clip_update does"):
        worker_plan(setup, 0.0)


def test_a_run_without_plugins_has_none(tiny_store: Path) -> None:
    config = small_config(tiny_store, model="small_cnn")
    assert plugin_code(config) is None
    assert own_code_of(config) == {}
