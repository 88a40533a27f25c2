"""The page beside an exported model: what it is, how it is used, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedflair.privacy.accounting import shown
from fedflair.privacy.ledger import coverage
from fedflair.runs.json_text import dumps
from fedflair.system.terminal import cell

# torchvision networks with heads that serve ImageNet training only.
_AUXILIARY = dict.fromkeys(("googlenet", "inception_v3"), "aux_logits=False, init_weights=False")
_SCORES = {"macro_ap": "macro AP", "micro_ap": "micro AP", "macro_f1": "macro F1", "mean_prevalence": "mean prevalence"}

_GROUP_NORM = """
for name, norm in [found for found in network.named_modules() if isinstance(found[1], nn.BatchNorm2d)]:
    channels = norm.num_features
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.GroupNorm(groups, channels, eps=norm.eps))"""

_ONNX = (
    "`model.onnx` is the network alone: `images`, float32 [n, 3, {size}, {size}], prepared as above, to `logits`. Its "
    "metadata has `model.json` under `fedflair`."
)


def card(facts: Mapping[str, Any], *, onnx: bool = False) -> str:
    """The page in Markdown, of what ``export.facts_of`` says. No text of a run or a dataset is markup in it.

    onnx: whether the network lies beside it as ONNX too.
    """
    network, made_by = facts["network"], facts["made_by"]
    sections = [
        f"# {_code(network_name(network))}, {len(facts['labels']):,} labels",
        f"A multi-label classifier of photographs with {facts['num_parameters']:,} parameters, trained by fedflair "
        f"{facts['fedflair']} (run {_code(made_by['run'])}: {_code(made_by['setting'])}).",
        "## Use",
        _use(facts),
        "## Inputs and outputs",
        _inputs(facts),
        *([_ONNX.format(**facts["preprocessing"])] if onnx else []),
        "## Labels",
        "In the order of the outputs:",
        # A line of JSON ends no fence.
        f"```json\n{dumps(list(facts['labels']), indent=0)}\n```",
        "## Where it comes from",
        "\n".join(_origin(facts)),
    ]
    return "\n\n".join(sections) + "\n"


def network_name(network: Mapping[str, Any]) -> str:
    """What people call it."""
    return str(network["model_type"] if network["model"] == "multi_label_cnn" else network["model"])


def is_torchvisions(network: Mapping[str, Any]) -> bool:
    """Whether plain PyTorch and torchvision can make it."""
    return network["model"] == "multi_label_cnn" and ":" not in network["model_type"]


def _use(facts: Mapping[str, Any]) -> str:
    network, plain = facts["network"], is_torchvisions(facts["network"])
    needed = "torchvision" if plain else "fedflair"
    lines = [
        "From the command line, `fedflair predict --model . photo.jpg`. In Python, in this folder, with PyTorch, "
        f"{needed}, Pillow, NumPy and safetensors:"
    ]
    code = [*_imports(plain), *(_made(facts) if plain else _loaded(network)), *_photograph(facts["preprocessing"])]
    lines.append("```python\n" + "\n".join(code) + "\n```")
    lines += _notes(facts)
    return "\n\n".join(lines)


def _imports(plain: bool) -> list[str]:
    if plain:
        own = ["from safetensors.torch import load_file", "from torch import nn", "from torchvision import models"]
    else:
        own = ["from fedflair.evaluation.exported import load_network"]
    return ["import json, numpy, torch", "from pathlib import Path", "from PIL import Image, ImageOps", *own, ""]


def _made(facts: Mapping[str, Any]) -> list[str]:
    network = facts["network"]
    name, options = network["model_type"], _AUXILIARY.get(network["model_type"], "")
    further = f", {options}" if options else ""
    return [
        f"network = models.get_model({name!r}, num_classes={len(facts['labels'])}{further})"
        + ("" if network["pretrained"] else _GROUP_NORM),
        'network.load_state_dict(load_file("model.safetensors"))',
    ]


def _loaded(network: Mapping[str, Any]) -> list[str]:
    trusted = ", allow_code=True" if network["own_code"] or network["plugins"] else ""
    return [f'network = load_network("."{trusted})']


def _photograph(inputs: Mapping[str, Any]) -> list[str]:
    side, size = inputs["side"], inputs["size"]
    return [
        'photo = Image.open("photo.jpg")',
        f'photo.draft("RGB", ({3 * side}, {3 * side}))',
        'photo = ImageOps.exif_transpose(photo).convert("RGB")',
        f"photo = photo.resize(({side}, {side}), Image.Resampling.LANCZOS)",
        "pixels = torch.from_numpy(numpy.array(photo)).permute(2, 0, 1)[None]",
        f"pixels = torch.nn.functional.interpolate(pixels, ({size}, {size}), mode={inputs['interpolation']!r}, "
        "antialias=True)",
        f"mean, deviation = torch.tensor({list(inputs['mean'])}), torch.tensor({list(inputs['deviation'])})",
        "with torch.inference_mode():",
        "    inputs = (pixels / 255 - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)",
        "    probabilities = network.eval()(inputs).sigmoid()[0]",
        'labels = json.loads(Path("model.json").read_text())["labels"]',
        "for label, probability in zip(labels, probabilities.tolist()):",
        '    print(f"{probability:.6f} {label!r}")',
    ]


def _notes(facts: Mapping[str, Any]) -> list[str]:
    network, notes = facts["network"], []
    if is_torchvisions(network) and network["pretrained"]:
        notes.append(
            "It was trained with the statistics of its BatchNorm layers fixed, which `eval()` computes with; "
            "`num_batches_tracked` is not among the weights, and PyTorch does without."
        )
    elif is_torchvisions(network):
        notes.append("The loop puts GroupNorm in the place of each BatchNorm, as in training.")
    else:
        what = ", ".join(_code(name) for name in _imported(network))
        notes.append(f"`load_network` makes the network as in training; it imports {what}.")
        if network["own_code"]:
            digests = ", ".join(f"{_code(name)} {_code(text)}" for name, text in network["own_code"].items())
            notes.append(f"SHA-256 of the files of that code, which have to be the same: {digests}.")
    if network["precision"] == "bf16":
        notes.append("In training it computed in bfloat16, and here in float32: equal up to that rounding.")
    return notes


def _imported(network: Mapping[str, Any]) -> Sequence[str]:
    """What has to be there to make a network that is not torchvision's."""
    family, _, name = network["model_type"].partition(":")
    if network["model"] == "small_cnn":
        return ["fedflair.models.small_cnn"]
    if network["model"] != "multi_label_cnn":
        return network["plugins"] or [f"the package that adds {network['model']}"]
    return [{"timm": "timm", "hf": "transformers"}.get(family, f"{family} ({name})")]


def _inputs(facts: Mapping[str, Any]) -> str:
    wanted = facts["preprocessing"]
    return (
        f"A photograph is taken whole, upright and in RGB; both its sides are resized to {wanted['side']} pixels "
        "(Lanczos), whatever its proportions, as FLAIR's own small photographs were, and then, antialiased, to "
        f"{wanted['size']} ({wanted['interpolation']}); from values of 0 to 1 the mean {list(wanted['mean'])} is "
        f"taken, and the rest divided by {list(wanted['deviation'])}. The network gives {facts['outputs']}."
    )


def _origin(facts: Mapping[str, Any]) -> list[str]:
    made = facts["made_by"]
    found = [f"- The model of round {made['round']} ({made['checkpoint']} of the run)."]
    if made["provenance"] is not None:
        found.append(f"- Store: {_code(made['provenance']['store'])}.")
    for entry in made["environment"][-1:]:
        found.append(
            f"- Last begun {_code(str(entry.get('began')))}; `model.json` says with what, and on what machine."
        )
    for partition in ("val", "test"):
        scores = made.get(partition, {})
        words = [f"{name} {scores[key]:.4f}" for key, name in _SCORES.items() if isinstance(scores.get(key), float)]
        if words:
            found.append(f"- On {partition}: {', '.join(words)}.")
    for privacy in (made["privacy"], made["local_privacy"]):
        if privacy is not None and privacy.get("words"):
            found.append(f"- {_text(shown.words(privacy))}")
    if coverage.FIELD in facts:
        found.append(
            "- Epsilon covers the weights. The scores and the choice of the round are computed without noise: it does "
            "not cover them."
        )
    return found


def _text(text: str) -> str:
    """Text in a line of Markdown, none of which is markup."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|~" else {"<": "&lt;", "&": "&amp;"}.get(c, c) for c in cell(text))


def _code(text: str) -> str:
    """Text as it is, in a line."""
    return f"`{cell(text).replace('`', chr(39))}`"
