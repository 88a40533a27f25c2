"""A network as ONNX, for runtimes that know no PyTorch; an extra (``fedflair[onnx]``)."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.runs.json_text import dumps

INPUT, OUTPUT = "images", "logits"
_NEEDED = ("onnx", "onnxscript")


def require_onnx() -> None:
    """Refuses (ConfigError) where what writes it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise ConfigError("format: onnx is not installed; pip install 'fedflair[onnx]'")


def onnx_bytes(module: nn.Module, size: int, facts: Mapping[str, Any]) -> bytes:
    """The network: ``images`` float32 [n, 3, size, size], any n, to ``logits`` [n, labels]; ``facts`` in its metadata.

    Raises ConfigError where the network cannot be written so.
    """
    images = torch.zeros(2, 3, size, size)
    try:
        # What its libraries will do otherwise one day.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (images,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props["fedflair"] = dumps(facts)
            file = Path(folder, "model.onnx")
            program.save(str(file))
            return file.read_bytes()
    except OSError:
        raise
    # It follows the network through libraries of its own, and may stumble over anything in it.
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"format: this network cannot be written as ONNX ({type(error).__name__}: {words}); use safetensors"
        ) from error
