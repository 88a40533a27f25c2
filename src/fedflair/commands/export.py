"""``fedflair export``: a run's model as a folder or a file of its own, which needs neither the run nor its store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedflair.system.terminal import say


def export(
    *,
    run: Path,
    output: Path,
    checkpoint: Literal["best", "last"] = "best",
    format_: Literal["safetensors", "onnx"] = "safetensors",
) -> None:
    """Export a run's model: weights by name, labels, preprocessing, where it comes from, and how to use it.

    Args:
        run: The run folder.
        output: The folder to write, or a file that ends in .safetensors or .onnx; it must not be there yet.
        checkpoint: The model that was best on val, or the one of the last round that was saved.
        format_: Weights as safetensors, or with them the network as ONNX (pip install 'fedflair[onnx]').
    """
    # Here, as networks take a second to load.
    from fedflair.evaluation.export import export_run
    from fedflair.evaluation.opened import open_run

    export_run(open_run(run, checkpoint), output, format_)
    say(f"{output}: the {checkpoint} model of {run}")
    if output.suffix != ".onnx":
        say(f"Next: fedflair predict --model {output} PHOTOGRAPHS")
