"""Weights to start from, of a file in any form they are published in or torchvision's own, and whether they fit."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedflair.data.download.patience import Patience
from fedflair.data.download.transfer import RemoteFile, fetch
from fedflair.errors import ConfigError, DataError
from fedflair.system.terminal import one_line

# torchvision's largest have 2.5 GB.
_LARGEST_WEIGHTS = 10 * 10**9
# What training scripts keep the weights under, and what wrappers put before each name.
_ENVELOPES = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_NUM_NAMED = 3


def imagenet_weights(model_type: str) -> dict[str, torch.Tensor]:
    """torchvision's ImageNet weights, downloaded once and cached.

    Raises ConfigError where they cannot be had, saying which file to put where.
    """
    from torchvision import models

    weights = models.get_model_weights(model_type).DEFAULT
    # Where torch keeps them, so that whoever has them there already fetches nothing.
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not cached.is_file():
        _fetch(weights.url, cached, model_type)
    return read_weights(cached)


def _fetch(url: str, cached: Path, model_type: str) -> None:
    digest = re.search(r"-([0-9a-f]{8,64})\.", cached.name)

    def check(path: Path) -> None:
        state = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                state.update(piece)
        found = state.hexdigest()
        if digest is not None and not found.startswith(digest[1]):
            raise DataError(f"its hash is {found}, not {digest[1]}...")

    patience = Patience(attempts=3, ways_out="check the network and HTTPS_PROXY")
    try:
        file = RemoteFile(url, cached, None, check, most=_LARGEST_WEIGHTS)
        fetch(file, patience, threading.Event(), lambda there: None)
    except DataError as error:
        raise ConfigError(
            f"pretrained: the ImageNet weights of {model_type} cannot be downloaded ({error}); "
            f"put {url} at {cached}, or name a file with --pretrained_weights PATH, or use --pretrained false"
        ) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a ``.safetensors`` file or a PyTorch ``.pth`` file (no code of it is run).

    Weights that lie under a key of a training script's checkpoint are found there; prefixes that all names have from
    a wrapper (``module.``) are taken off. Raises ConfigError without a file, DataError where it is none of that.
    """
    if not path.is_file():
        raise ConfigError(f"pretrained_weights: {path}: no such file; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return _unwrapped(dict(load_file(path)))
        # weights_only: published weights come as .pth, and this reader admits nothing but tensors and plain values.
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise DataError(
            f"pretrained_weights: {path}: not a weights file ({type(error).__name__}); download it again"
        ) from error
    except Exception as error:
        raise DataError(
            f"pretrained_weights: {path}: refused ({type(error).__name__}); only tensors are read"
        ) from error
    state = _state_in(found)
    if state is None:
        raise DataError(f"pretrained_weights: {path}: not a plain mapping of names to tensors")
    return _unwrapped(state)


def fit(module: nn.Module, state: Mapping[str, torch.Tensor], model_type: str) -> None:
    """Loads all of it but the head, which is the only layer allowed to have another shape: there it begins anew.

    A file of fine labels so starts a model of coarse ones. Raises DataError, with how many tensors are missing or of
    another shape, and the first of them, where the file is of another network.
    """
    own = module.state_dict()
    other = [name for name, tensor in own.items() if name in state and state[name].shape != tensor.shape]
    layers = {name.rsplit(".", 1)[0] for name in other}
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    if missing or len(layers) > 1:
        kinds = {"missing": missing, "of another shape": other, "unknown to it": [n for n in state if n not in own]}
        counted = [_counted(names, what) for what, names in kinds.items() if names]
        raise DataError(
            f"pretrained_weights: do not fit {model_type}: of {len(own):,} tensors {', '.join(counted)}; "
            "check --model_type"
        )
    # A head of the right shape is loaded as well: then the file is a model of these very labels.
    module.load_state_dict({n: t for n, t in state.items() if n in own and n not in other}, strict=False)


def _state_in(found: Any) -> dict[str, torch.Tensor] | None:
    """The mapping of names to tensors in what a file holds, if there is one."""
    if not isinstance(found, Mapping):
        return None
    if found and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()):
        return dict(found)
    return next((state for key in _ENVELOPES if (state := _state_in(found.get(key))) is not None), None)


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def _counted(names: Sequence[str], what: str) -> str:
    shown = ", ".join(one_line(name)[:60] for name in names[:_NUM_NAMED])
    return f"{len(names):,} {what} ({shown}{', ...' if len(names) > _NUM_NAMED else ''})"
