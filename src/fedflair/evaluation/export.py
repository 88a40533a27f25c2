"""Exports a run's model: weights by name, adapters built in, and all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from fedflair import __version__
from fedflair.config.names import OWN_NAMES
from fedflair.data.images.jpeg import SIDE
from fedflair.data.images.preprocessing import Preprocessing
from fedflair.engine.flat_model import set_parameters
from fedflair.errors import ConfigError
from fedflair.evaluation.card import card
from fedflair.evaluation.exported import CARD, FACTS, FORMAT, VERSION, WEIGHTS, Network
from fedflair.evaluation.onnx_file import onnx_bytes, require_onnx
from fedflair.evaluation.opened import OpenedRun
from fedflair.federated.plugins import own_code_of
from fedflair.models.adapters import merge
from fedflair.models.preprocessing import preprocessing_of
from fedflair.privacy.ledger import coverage
from fedflair.runs.environment import read_environment
from fedflair.runs.folder import read_summary
from fedflair.runs.json_text import dumps, strict
from fedflair.runs.tensors import save_tensors
from fedflair.system.files import new_folder, readable_by_others, write_atomically

Format = Literal["safetensors", "onnx"]
ONNX = "model.onnx"


def export_run(opened: OpenedRun, output: Path, format_: Format = "safetensors") -> None:
    """Writes the model to a folder that is not there yet, or to a file that ends like the format.

    format_: a folder for ``onnx`` has the network as ONNX beside all that one for ``safetensors`` has.
    Raises ConfigError where something is there already or the network cannot be made here, DataError where the run does
    not say its labels or the disk refuses. Nothing is left half-written.
    """
    _check(output, format_)
    module = whole_network(opened)
    facts = facts_of(opened, module)
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    onnx = onnx_bytes(module, facts["preprocessing"]["size"], facts) if format_ == "onnx" else None
    if output.suffix == ".onnx" and onnx is not None:
        write_atomically(output, onnx)
    elif output.suffix == ".safetensors":
        save_tensors(output, tensors, facts, mode=readable_by_others())
    else:
        with new_folder(output) as folder:
            save_tensors(folder / WEIGHTS, tensors, facts, mode=readable_by_others())
            write_atomically(folder / FACTS, dumps(facts, indent=2) + "\n")
            write_atomically(folder / CARD, card(facts, onnx=onnx is not None))
            if onnx is not None:
                write_atomically(folder / ONNX, onnx)


def _check(output: Path, format_: Format) -> None:
    """Raises ConfigError where something is at the place of an export, or it ends like another format."""
    if output.exists() or output.is_symlink():
        raise ConfigError(f"output: {output} is there already; remove it, or name another place")
    endings: dict[str, Format] = {".safetensors": "safetensors", ".onnx": "onnx"}
    wanted = endings.get(output.suffix, format_)
    if wanted != format_:
        raise ConfigError(f"output: {output} ends like another format; give --format {wanted}, or name a folder")
    if format_ == "onnx":
        require_onnx()


def whole_network(opened: OpenedRun) -> nn.Module:
    """The network on the CPU with all of the run's weights, what was added for training built into its own."""
    module = opened.model().setup.module.to("cpu")
    set_parameters(module, opened.parameters)
    try:
        return merge(module).eval()
    except ConfigError as error:
        raise ConfigError(f"{opened.folder.path}: {error}") from error


def facts_of(opened: OpenedRun, module: nn.Module) -> dict[str, Any]:
    """All that an export says of its model, as JSON has it."""
    config, wanted = opened.config, preprocessing_of(module)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "format_version": VERSION,
        "fedflair": __version__,
        "network": {**asdict(_network(opened)), "normalisation": _normalisation(opened)},
        "num_parameters": sum(parameter.numel() for parameter in module.parameters()),
        "labels": list(opened.labels),
        "fine_grained": config.data.use_fine_grained_labels,
        "preprocessing": _inputs(replace(wanted, size=config.data.image_size or wanted.size)),
        "outputs": "a logit for each label, in their order; its sigmoid is the label's probability",
        "made_by": _made_by(opened),
    }
    if opened.promises_epsilon:
        facts[coverage.FIELD] = ["made_by.round", "made_by.val", "made_by.test", "made_by.environment"]
    found: dict[str, Any] = strict(facts)
    return found


def _network(opened: OpenedRun) -> Network:
    config = opened.config
    # Plugins that add something to training only are no part of the network.
    plugins = () if config.model.model in OWN_NAMES["model"] else config.run.plugins
    network = Network(
        config.model.model,
        config.model.model_type,
        config.model.pretrained,
        config.hardware.precision,
        None if opened.provenance is None else opened.provenance.kernels,
        plugins,
        {},
    )
    if not network.imported:
        return network
    return replace(network, own_code=own_code_of(network.config(config.data.image_size or 224)))


def _normalisation(opened: OpenedRun) -> str:
    if opened.config.model.model != "multi_label_cnn":
        return "as the network has it"
    kind = "BatchNorm with fixed statistics" if opened.config.model.pretrained else "GroupNorm in place of BatchNorm"
    return f"{kind}; others as the network has them"


def _inputs(wanted: Preprocessing) -> dict[str, Any]:
    return {
        "photograph": f"the whole photograph, upright, RGB, both sides resized to {SIDE} pixels (Lanczos)",
        "side": SIDE,
        **asdict(wanted),
        "antialias": True,
    }


def _made_by(opened: OpenedRun) -> dict[str, Any]:
    """Where the model comes from: what the run is held to, rounds, scores, privacy, machines."""
    folder, saved = opened.folder, opened.saved
    summary: Mapping[str, Any] = read_summary(folder) if folder.summary.is_file() else {}
    made: dict[str, Any] = {
        "run": folder.path.resolve().name,
        "setting": opened.config.setting,
        "checkpoint": opened.checkpoint,
        "round": saved.get("best_round" if opened.checkpoint == "best" else "round"),
        "provenance": None if opened.provenance is None else opened.provenance.as_dict(),
        "environment": [dict(entry) for entry in read_environment(folder)],
        "privacy": summary.get("privacy"),
        "local_privacy": summary.get("local_privacy"),
    }
    if opened.checkpoint == "best":
        made |= {name: dict(summary[name]) for name in ("val", "test") if name in summary}
    if not summary and opened.promises_epsilon:
        made["privacy"] = {"words": "The run has not ended: 'fedflair report' says what it promises so far."}
    return made
