"""Which backend a configuration asks for, and what it lacks."""

from __future__ import annotations

import importlib.util

import pytest

from fedflair.backends.choice import require_backend, uses_ray
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError


def test_workers_without_ray_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    require_backend(TrainConfig())
    for asked in ({"workers": 2}, {"ray_address": "127.0.0.1:6379"}):
        config = TrainConfig.of(**asked)
        assert uses_ray(config)
        with pytest.raises(ConfigError, match=r"workers: Ray is not installed; .*pip install 'fedflair\[ray\]'"):
            require_backend(config)


def test_a_cluster_s_address_at_which_nobody_listens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ray_address"):
        require_backend(TrainConfig.of(ray_address="127.0.0.1:1"))
