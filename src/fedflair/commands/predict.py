"""``fedflair predict``: what a trained model says of photographs: a table, JSON, CSV, and a page with the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedflair.config.parsing import as_usage_errors
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.errors import ConfigError, UsageError

_PAGES = (".html", ".htm")


def predict(
    *photographs: Path,
    run: Path | None = None,
    model: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    data_path: Path | None = None,
    partition: Literal["train", "val", "test"] | None = None,
    threshold: float = 0.5,
    top: int = 5,
    json: bool = False,
    csv: bool = False,
    page: Path | None = None,
    allow_code: bool = False,
    max_image_pixels: int = DEFAULT.image_pixels,
    max_image_bytes: int = DEFAULT.image_bytes,
    max_image_scans: int = DEFAULT.image_scans,
) -> None:
    """Predict the labels of photographs with a trained model: the most probable ones, and which are above a threshold.

    Args:
        photographs: Files, and folders, which are searched however deep; of any size and format that Pillow reads.
        run: The run folder whose model predicts.
        model: What fedflair export wrote, instead of a run.
        checkpoint: The run's model that was best on val, or the one of the last round that was saved.

    A store's photographs:
        data_path: A store to predict a partition of, instead of photographs; the run's own if not given.
        partition: The partition of that store.

    What is shown:
        threshold: A label is predicted where its probability is above this.
        top: How many labels of each photograph to show, the most probable first; 0 is all.
        json: Print JSON instead of a table.
        csv: Print CSV, a line for each label shown, instead of a table.
        page: Also write an HTML page with the pictures to this file.

    What is trusted:
        allow_code: Import and call the code of somebody's own that an exported network is made by.
        max_image_pixels: Pixels that one photograph may have; more are refused before they are decoded.
        max_image_bytes: Bytes that one encoded photograph may have.
        max_image_scans: Scans that one progressive JPEG may have.
    """
    with as_usage_errors():
        _check(photographs, run, model, data_path, partition, threshold, top, page)
    if json and csv:
        raise UsageError("csv: given together with --json; drop one of the two")
    # Here, as networks take two seconds to load.
    from fedflair.commands.predictions import Asked, show

    limits = Limits(image_pixels=max_image_pixels, image_bytes=max_image_bytes, image_scans=max_image_scans)
    form: Literal["json", "csv", "table"] = "json" if json else "csv" if csv else "table"
    show(
        Asked(photographs, limits, run, model, checkpoint, data_path, partition, allow_code), threshold, top, form, page
    )


def _check(
    photographs: Sequence[Path],
    run: Path | None,
    model: Path | None,
    data_path: Path | None,
    partition: str | None,
    threshold: float,
    top: int,
    page: Path | None,
) -> None:
    """Raises ConfigError for options that do not go together, before anything is loaded."""
    if (run is None) == (model is None):
        raise ConfigError("predict: name a run folder with --run, or an exported model with --model, and not both")
    if not photographs and partition is None:
        raise ConfigError("predict: name photographs or folders of them, or a store's partition with --partition")
    if photographs and partition is not None:
        raise ConfigError("partition: given together with photographs; drop one of the two")
    if data_path is not None and partition is None:
        raise ConfigError("data_path: say which partition of it with --partition test")
    if model is not None and partition is not None and data_path is None:
        raise ConfigError("partition: an exported model has no store; name one with --data_path")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: {threshold} is impossible; it must be from 0 to 1")
    if top < 0:
        raise ConfigError(f"top: {top} is impossible; it must be at least 0, which is all labels")
    if page is not None and (page.suffix.lower() not in _PAGES or page.is_dir()):
        raise ConfigError(f"page: {page}: name a file that ends in .html")
