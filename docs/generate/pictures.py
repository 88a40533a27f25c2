"""The pictures of README.md and docs/, from the runs of ``make demo``: ``make pictures``.

    python docs/generate/pictures.py RUN [RUN ...]

Learning curves of all of these runs, and what the first one's model says of photographs of test.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from fedflair.data.store.packed import Partition, open_store
from fedflair.evaluation.opened import open_run
from fedflair.evaluation.predict import Prediction, Stored, predict
from fedflair.privacy.accounting.shown import cell
from fedflair.report.data import Group, curve, read_groups

PICTURES = Path(__file__).parents[1] / "pictures"
MOST_BYTES = 150_000
COLOURS = ("#2f86d6", "#1a9e77", "#e0661f", "#c468a5", "#8a6fd1", "#c99a00")
# A picture has one ground in the light and the dark: a white one, with dark ink.
STYLE: Any = {"font.size": 10, "font.family": "DejaVu Sans", "axes.titlelocation": "left"}
NUM_PHOTOGRAPHS = 8
NUM_LABELS = 3
RIGHT, WRONG = "#bfe3d0", "#f3cdbd"


def main(runs: Sequence[Path]) -> None:
    """Draws both pictures."""
    PICTURES.mkdir(exist_ok=True)
    save(curves(read_groups(runs)), "curves.png")
    save(photographs(runs[0]), "photographs.png")


def curves(groups: Sequence[Group]) -> Figure:
    """Macro AP on val against rounds, a line a run with its name at its end; what is promised stands in the name."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=110)
        axes = figure.add_subplot()
        ends = []
        for group, colour in zip(groups, COLOURS):
            rounds, means, _ = curve(group, "val/macro_ap")
            axes.plot(rounds, means, color=colour, linewidth=2, marker="o", markersize=3)
            ends.append((means[-1], rounds[-1], named(group), colour))
        for height, (_, last, name, colour) in zip(spread([end[0] for end in sorted(ends)], 0.062), sorted(ends)):
            axes.annotate(name, (last, height), (8, 0), textcoords="offset points", color=colour, va="center")
        prevalence = prevalence_of(groups[0])
        axes.axhline(prevalence, color="#777777", linestyle=":")
        axes.annotate("knows nothing", (1, prevalence - 0.035), color="#666666", va="center")
        axes.set_xlim(0, max(end[1] for end in ends) * 1.02)
        axes.set_ylim(0, 1)
        axes.set_xlabel("round")
        axes.set_title("macro AP on val: 17 labels of a FLAIR-like dataset")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def named(group: Group) -> str:
    """The run's name, and under it what its noise promises and how long it is beside the clipping bound."""
    summary = group.runs[0].summary or {}
    privacy = summary.get("privacy")
    name = group.name.replace("_", " ")
    if not privacy:
        return name
    return f"{name}: epsilon {cell(privacy)},\nnoise {noise_over_bound(group):.2g} x bound"


def noise_over_bound(group: Group) -> float:
    """The length of the noise on a round's mean update over the clipping bound."""
    run = group.runs[0]
    privacy = (run.summary or {})["privacy"]
    size = int(run.options["cohort_size"])
    return math.sqrt(num_parameters(group)) * privacy["noise_std"] / (size * privacy["clipping_bound"])


def num_parameters(group: Group) -> int:
    """How many are trained, which is what a client sends in float32."""
    run = group.runs[0]
    row = next(row for row in run.rows if row.get("train/num_clients"))
    return round(row["train/bytes_up"] / row["train/num_clients"] / 4)


def prevalence_of(group: Group) -> float:
    """Macro AP of a model that knows nothing."""
    return float(next(row["val/mean_prevalence"] for row in group.runs[0].rows if "val/mean_prevalence" in row))


def spread(heights: Sequence[float], least: float) -> list[float]:
    """Ascending heights moved up until each is ``least`` above the one before."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    return moved


def photographs(run: Path) -> Figure:
    """Photographs of test, of different labels, with the labels that the run's model finds most probable."""
    opened = open_run(run, "best")
    model = opened.model()
    partition = open_store(opened.config.data.data_path).partitions["test"]
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.1), layout="constrained", dpi=110)
        grid = figure.subplots(4, NUM_PHOTOGRAPHS // 2, gridspec_kw={"height_ratios": [3, 1] * 2})
        found = list(predict(model, Stored(partition)))
        for place, position in enumerate(chosen(partition)):
            prediction = found[position]
            assert isinstance(prediction, Prediction)
            row, column = 2 * (place // (NUM_PHOTOGRAPHS // 2)), place % (NUM_PHOTOGRAPHS // 2)
            with Image.open(io.BytesIO(partition.encoded(position))) as image:
                grid[row, column].imshow(image.convert("RGB"))
            grid[row, column].axis("off")
            bars(grid[row + 1, column], prediction, model.setup.labels, labels_of(partition, position))
    return figure


def chosen(partition: Partition) -> list[int]:
    """Photographs with several labels, none of which an earlier one shows; then the first of the others."""
    seen: set[int] = set()
    places: list[int] = []
    for position in range(partition.num_images):
        labels = labels_of(partition, position)
        if len(labels) > 1 and not labels & seen:
            places.append(position)
            seen |= labels
    rest = (position for position in range(partition.num_images) if position not in places)
    while len(places) < NUM_PHOTOGRAPHS:
        places.append(next(rest))
    return places[:NUM_PHOTOGRAPHS]


def labels_of(partition: Partition, position: int) -> set[int]:
    columns = partition.columns
    start, end = columns.label_offsets[position : position + 2]
    return set(columns.label_indices[start:end].tolist())


def bars(axes: Any, prediction: Prediction, labels: Sequence[str], true: set[int]) -> None:
    """The most probable labels as bars, green where the photograph has them."""
    best = np.argsort(-prediction.probabilities, kind="stable")[:NUM_LABELS].tolist()
    for row, label in enumerate(best):
        probability = float(prediction.probabilities[label])
        axes.barh(row, probability, 0.9, color=RIGHT if label in true else WRONG)
        axes.text(0.02, row, labels[label], va="center", fontsize=9)
        axes.text(0.98, row, f"{probability:.2f}", va="center", ha="right", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(NUM_LABELS - 0.4, -0.6)
    axes.axis("off")


def save(figure: Figure, name: str) -> None:
    """Writes a picture in 128 colours. Raises ValueError where it is larger than a page should load."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(128).save(PICTURES / name, optimize=True)
    size = (PICTURES / name).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{name}: {size:,} bytes; a picture of the documentation has at most {MOST_BYTES:,}")
    print(f"{PICTURES / name}: {size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("pictures: name run folders")
    main([Path(word) for word in sys.argv[1:]])
