"""The pictures of README.md and docs/, from the runs of ``make demo``: ``make pictures``.

    python docs/generate/pictures.py RUN [RUN ...]

Learning curves of all of these runs, and what the first one's model says of photographs of test.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from fedflair.privacy.accounting.shown import cell
from fedflair.report.data import Run, read_run

if TYPE_CHECKING:
    from fedflair.data.store.packed import Partition

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
    save(curves([read_run(run, run.name) for run in runs]), "curves.png")
    save(photographs(runs[0]), "photographs.png")


def curves(runs: Sequence[Run]) -> Figure:
    """Macro AP on val against rounds, a line a run with its name at its end; what is promised stands in the name."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=110)
        axes = figure.add_subplot()
        ends = []
        for run, colour in zip(runs, COLOURS):
            scored = [row for row in run.rows if row.get("val/macro_ap") is not None]
            rounds, values = [row["round"] for row in scored], [row["val/macro_ap"] for row in scored]
            axes.plot(rounds, values, color=colour, linewidth=2, marker="o", markersize=3)
            ends.append((values[-1], rounds[-1], named(run), colour))
        last = max(end[1] for end in ends)
        # Lines that end together have their names one above another.
        together = sorted(end for end in ends if end[1] == last)
        places = [(last, height, *end[2:]) for height, end in zip(spread([end[0] for end in together], 0.09), together)]
        places += [(end[1], end[0], *end[2:]) for end in ends if end[1] != last]
        for place, height, name, colour in places:
            axes.annotate(name, (place, height), (10, 0), textcoords="offset points", color=colour, va="center")
        prevalence = scored[0]["val/mean_prevalence"]
        axes.axhline(prevalence, color="#777777", linestyle=":")
        axes.annotate("a model that knows nothing", (last / 2, prevalence - 0.04), color="#666666", va="center")
        axes.set_xlim(0, last * 1.02)
        axes.set_ylim(0, max(end[0] for end in ends) + 0.2)
        axes.set_xlabel("round")
        axes.set_title("macro AP on val, 17 labels of a FLAIR-like dataset")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def named(run: Run) -> str:
    """The run's name, and under it what its noise promises and how long it is beside the clipping bound."""
    name, length = run.name.replace("_", " "), run.noise_over_bound
    return name if length is None else f"{name}: epsilon {cell(run.privacy)},\nnoise {length:.2g} x bound"


def spread(heights: Sequence[float], least: float) -> list[float]:
    """Ascending heights, each at least ``least`` above the one before, around where they were."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    shift = (sum(moved) - sum(heights)) / len(moved)
    return [height - shift for height in moved]


@dataclass(frozen=True)
class Some:
    """A few photographs of a partition, for ``predict``."""

    partition: Partition
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, position: int) -> str:
        return str(self.positions[position])

    def read(self, position: int) -> Any:
        from fedflair.data.images.photographs import checked

        return checked(self.partition.encoded(self.positions[position]))


def photographs(run: Path) -> Figure:
    """Photographs of test, of different labels, with the labels that the run's model finds most probable."""
    # Here, as they load torch, which curves do without.
    from fedflair.data.store.packed import open_store
    from fedflair.evaluation.opened import open_run
    from fedflair.evaluation.predict import predict

    opened = open_run(run, "best")
    model = opened.model()
    partition = open_store(opened.config.data.data_path).partitions["test"]
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.1), layout="constrained", dpi=110)
        grid = figure.subplots(4, NUM_PHOTOGRAPHS // 2, gridspec_kw={"height_ratios": [3, 1] * 2})
        positions = chosen(partition)
        for place, prediction in enumerate(predict(model, Some(partition, positions))):
            position = positions[place]
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


def bars(axes: Any, prediction: Any, labels: Sequence[str], true: set[int]) -> None:
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
