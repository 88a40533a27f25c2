"""Apple's release as a server has it, with ten images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from tests.data.releases import member, records, write_labels

LABELS = "/labels/labels_and_metadata.json"
RELATION = "/labels/label_relationship.txt"
NOISE_SIZE = 100_000


def packed(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive_paths(kind: str = "small", prefix: str = "small_images") -> list[str]:
    return [f"/images/{kind}/{prefix}-{number:02d}.tar.gz" for number in range(43)]


def small_release(folder: Path) -> dict[str, bytes]:
    """Ten images in the first ten of 43 archives, each archive with an image that no label speaks of."""
    write_labels(folder, records())
    noise = np.random.default_rng(0).integers(0, 256, (43, NOISE_SIZE), dtype=np.uint8)
    content = {
        LABELS: (folder / "labels_and_metadata.json").read_bytes(),
        RELATION: (folder / "label_relationship.txt").read_bytes(),
    }
    for kind, prefix in (("small", "small_images"), ("raw", "images")):
        for number, path in enumerate(archive_paths(kind, prefix)):
            own = [member(r) for r in records()[number : number + 1]]
            named = [(f"{prefix}/{Path(name).name}", image) for name, image in own]
            content[path] = packed([*named, (f"{prefix}/{10**12 + number}.jpg", noise[number].tobytes())])
    return content
