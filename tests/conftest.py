"""A tiny store of real JPEGs that every test can train on."""

from __future__ import annotations

import io
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from fedflair.backends.ray.cluster import LOOPBACK
from fedflair.data.store import writing
from fedflair.data.store.packed import PartitionColumns, StoreMetadata
from tests import properties

# Read when Ray is imported. A token of our own, so that none is written to the home folder.
os.environ.update({**LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})

# Where the suite is started in the background, SIGINT is ignored, and by nohup SIGHUP too; processes that tests start
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# make fuzz chooses the other one, by --hypothesis-profile.
settings.load_profile(properties.SAME)

# Begun first, in this order, so that in the end no process waits for another's long file.
LONG = (
    "backends/ray/test_backend.py",
    "audit/test_measure.py",
    "commands/test_damaged_runs.py",
    "backends/ray/test_nodes.py",
    "api/test_notebooks.py",
    "privacy/test_killed_runs.py",
    "backends/ray/test_partition.py",
    "test_perf.py",
    "privacy/test_runs.py",
    "training/test_verification.py",
    "evaluation/test_features.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    here = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


LABELS = ("animal", "food", "outdoor", "plant")
FINE_LABELS = ("cat", "dog", "bread", "sky", "tree")
USER_SIZES = {"train": (1, 2, 3, 5, 9, 4), "val": (3, 6), "test": (4, 5)}


def jpeg(seed: int, side: int = 256) -> bytes:
    """A colourful JPEG of ``side`` x ``side`` pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_tiny_store(
    path: Path,
    user_sizes: Mapping[str, Sequence[int]] = USER_SIZES,
    encode: Callable[[int], bytes] = jpeg,
    labels: Sequence[str] = LABELS,
    user_id: str = "{}-{}@N0{}",
) -> Path:
    """6, 2 and 2 users; every label occurs in every partition.

    encode: an image's number -> its bytes. user_id: of the partition, and of the user's number, twice.
    """
    with writing.create(path) as writer:
        first_id = 0
        for partition, sizes in user_sizes.items():
            num_images = sum(sizes)
            images = [encode(first_id + i) for i in range(num_images)]
            coarse = [sorted({i % 4, (i * i + 1) % 4}) for i in range(num_images)]
            fine = [sorted({i % 5, (i + 2) % 5}) for i in range(num_images)]
            columns = PartitionColumns(
                user_ids=[user_id.format(partition, k, k) for k in range(len(sizes))],
                user_offsets=np.cumsum([0, *sizes]),
                image_ids=np.arange(first_id, first_id + num_images),
                image_offsets=np.cumsum([0, *map(len, images)]),
                label_offsets=np.cumsum([0, *map(len, coarse)]),
                label_indices=np.concatenate(coarse).astype(np.uint16),
                fine_label_offsets=np.cumsum([0, *map(len, fine)]),
                fine_label_indices=np.concatenate(fine).astype(np.uint16),
            )
            writer.partition(partition, columns)[:] = np.frombuffer(b"".join(images), dtype=np.uint8)
            first_id += num_images
        relation = dict(zip(FINE_LABELS, (labels[k] for k in (0, 0, 1, 2, 3))))
        writer.metadata(StoreMetadata(tuple(labels), FINE_LABELS, relation, {"source": "test"}))
    return path


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test that draws from torch's own generator gets the same numbers whatever was run before it."""
    torch.default_generator.manual_seed(0)


@pytest.fixture
def one_operator_thread() -> Iterator[None]:
    """As in training."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("store") / "tiny.hdf5")
