"""People's own photographs as files: a folder for each user, pictures of several formats and sizes, and a CSV."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.conftest import jpeg

COLOURS = ("red", "green", "blue", "yellow", "purple")
# file -> labels. Four users; one photograph has no label.
PHOTOGRAPHS = {
    "anna/cat.jpg": "cat|sofa",
    "anna/holiday/beach.png": "beach",
    "bob/1.webp": "cat",
    "bob/2.jp2": "",
    "ümit/é.tif": "sofa|beach",
    "zoe/a.bmp": "beach|cat",
}


def write_photographs(folder: Path, names: tuple[str, ...] = tuple(PHOTOGRAPHS)) -> Path:
    """``anna/cat.jpg`` is a JPEG of 256x256, as stores have them; the others are of one colour and of other sizes."""
    for position, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name == "anna/cat.jpg":
            file.write_bytes(jpeg(7))
        else:
            Image.new("RGB", (40 + 30 * position, 90), COLOURS[position % len(COLOURS)]).save(file)
    return folder


def write_table(file: Path, lines: list[str], header: str = "path,labels") -> Path:
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def write_own(folder: Path) -> tuple[Path, Path]:
    """A folder of photographs and, beside it, their CSV."""
    lines = [f"{name},{labels}" for name, labels in PHOTOGRAPHS.items()]
    photographs = write_photographs(folder / "photographs")
    return photographs, write_table(folder / "labels.csv", lines)
