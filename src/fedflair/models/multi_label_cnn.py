"""Any torchvision classification backbone with a multi-label head: logits float [n, num_labels].

torchvision is imported where it is needed only: for other backbones than the residual networks of ``resnet.py``, and to
find published weights.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedflair.data.download.patience import Patience
from fedflair.data.download.transfer import RemoteFile, fetch
from fedflair.errors import ConfigError, DataError
from fedflair.models.dropout import replace_dropout, replace_stochastic_depth
from fedflair.models.normalization import frozen_batch_norm, group_norm, replace_modules
from fedflair.models.resnet import RESNETS, ResNet
from fedflair.sampling import torch_stream

# torchvision's largest have 2.5 GB.
_LARGEST_WEIGHTS = 10 * 10**9


def backbones() -> list[str]:
    """Names that ``model_type`` can take: torchvision's classification models."""
    from torchvision import models

    return sorted(models.list_models(module=models))


def build(
    model_type: str, num_labels: int, *, pretrained: bool, weights: Mapping[str, torch.Tensor] | None, seed: int
) -> nn.Module:
    """A backbone whose last layer has ``num_labels`` outputs.

    Pretrained models keep BatchNorm with frozen statistics; models from scratch have GroupNorm in its place. Without
    ``weights`` a pretrained model has its shape only, to be filled from a checkpoint. The initial weights depend on
    ``seed`` alone. Raises ConfigError where the backbone is unknown, DataError where the weights do not fit.
    """
    if model_type not in RESNETS and model_type not in backbones():
        raise ConfigError(
            f"model_type: no torchvision classification model {model_type!r}; e.g. resnet18, mobilenet_v2"
        )
    module = _initialised(model_type, num_labels, seed)
    if weights is not None:
        _load(module, weights, model_type)
    replace_modules(module, nn.BatchNorm2d, frozen_batch_norm if pretrained else group_norm)
    replace_dropout(module)
    return module


def _initialised(model_type: str, num_labels: int, seed: int) -> nn.Module:
    # Layers draw their initial values from the global generator: lend it a named stream and put its state back.
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_stream(seed, "init").get_state())
        if model_type in RESNETS:
            return ResNet(RESNETS[model_type], num_labels)
        return _torchvisions(model_type, num_labels)


def _torchvisions(model_type: str, num_labels: int) -> nn.Module:
    from torchvision import models

    builder = models.get_model_builder(model_type)
    options: dict[str, bool] = {}
    # The auxiliary heads of GoogLeNet and Inception serve ImageNet training only.
    if model_type in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    if "weights_backbone" in inspect.signature(builder).parameters:
        raise ConfigError(f"model_type: {model_type!r} is not a classification model")
    module: nn.Module = builder(weights=None, num_classes=num_labels, **options)
    replace_stochastic_depth(module)
    return module


def imagenet_weights(model_type: str, path: Path | None) -> dict[str, torch.Tensor]:
    """Tensors to start from: of the file ``path``, or torchvision's ImageNet weights, downloaded once and cached.

    Raises ConfigError where they cannot be had, saying which file to put where.
    """
    if path is not None:
        return read_weights(path)
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
    """Tensors by name from a ``.safetensors`` file or a PyTorch ``.pth`` file (tensors only, no code is run)."""
    if not path.is_file():
        raise ConfigError(f"pretrained_weights: {path}: no such file; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # weights_only: published weights come as .pth, and this reader admits nothing but tensors.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise DataError(
            f"pretrained_weights: {path}: not a weights file ({type(error).__name__}); download it again"
        ) from error
    except Exception as error:
        raise DataError(
            f"pretrained_weights: {path}: refused ({type(error).__name__}); only tensors are read"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DataError(f"pretrained_weights: {path}: not a plain mapping of names to tensors")
    return state


def _load(module: nn.Module, state: Mapping[str, torch.Tensor], model_type: str) -> None:
    """Loads everything but the head, which is the only tensor allowed to differ in shape."""
    own = module.state_dict()
    head = {name for name, tensor in own.items() if name in state and state[name].shape != tensor.shape}
    layers = {name.rsplit(".", 1)[0] for name in head}
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    if missing or len(layers) > 1:
        example = (missing or sorted(head))[0]
        raise DataError(f"pretrained_weights: do not fit {model_type}, e.g. {example!r}; check --model_type")
    # A head of the right shape is loaded as well: then the file is a model of these very labels.
    module.load_state_dict({n: t for n, t in state.items() if n in own and n not in head}, strict=False)
