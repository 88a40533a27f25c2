"""``MODULE:FUNCTION``: a network of one's own, by any importable function of the number of labels."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from fedflair.data.images.preprocessing import Preprocessing
from fedflair.errors import ConfigError
from fedflair.models.preprocessing import with_preprocessing
from fedflair.system.own_code import file_digest, own_module


def make(model_type: str, num_labels: int) -> nn.Module:
    """What the function gives for ``num_labels``: a module, or a module and its ``Preprocessing``.

    Raises ConfigError, naming the function, where it is not there, fails, or gives something else.
    """
    found = _called(model_type, _function(model_type), num_labels)
    module, preprocessing = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(module, nn.Module) or not isinstance(preprocessing, Preprocessing | None):
        raise ConfigError(
            f"model_type: {model_type} gave {type(found).__name__}; it must give a torch.nn.Module, or a pair of one "
            "and fedflair's Preprocessing"
        )
    return module if preprocessing is None else with_preprocessing(module, preprocessing)


def digest(model_type: str) -> str | None:
    """SHA-256 of the file that the function is in, hexadecimal; None where it has none."""
    return file_digest(_module(model_type))


def _called(model_type: str, function: Callable[..., Any], num_labels: int) -> Any:
    try:
        return function(num_labels)
    # It is the user's own code, and can fail in any way that code can.
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigError(f"model_type: {model_type}({num_labels}) failed ({type(error).__name__}: {words})") from error


def _function(model_type: str) -> Callable[..., Any]:
    name = model_type.partition(":")[2]
    function: Any = _module(model_type)
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise ConfigError(f"model_type: {model_type}: the module has no function {name!r}")
    found: Callable[..., Any] = function
    return found


def _module(model_type: str) -> ModuleType:
    return own_module(model_type.partition(":")[0], f"model_type: {model_type}")
