"""Reading side by side: users at random from a packed store, and from pfl-research's layout through h5py.

    python perf/read.py                              # FLAIR's 41,131 training users: 13 GB of disk, some minutes
    python perf/read.py --num_users 4000 --json

Both files hold the same users with the twin's labels and numbers of images, and photographs drawn from 512 different
ones. Decoded, FLAIR's training images are 68 GB: after ``--gigabytes`` of pixels, a further user shares the pixels of
an earlier one of as many images (by a hard link within the HDF5 file; labels and ids stay its own), or where there is
none has pixels that take no disk and read as zeros. So less of pfl-research's file must come from the disk than of
the real one, which favours it. Its reading is implemented here anew, after its benchmark's code: open the file, read a
user's pixels and label indices, make them multi-hot.

Each measurement runs in a process of its own, alternately; the median of the repeats is shown. "Warm": the same users
were read once just before. "Cold": the system was made to forget both files. At full scale the store's 5 GB stay in the
memory of a machine of 24 GB and 68 GB of pixels do not, so the last ratios are of a warm store and a cold file of
pixels.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

import fedflair.data
from fedflair.data.clients.dataset import Dataset
from fedflair.data.published import NUM_USERS, PARTITION_SIZES
from fedflair.data.store import writing
from fedflair.data.store.packed import PartitionColumns, StoreMetadata
from fedflair.data.synthetic.labels import FINE_NAMES, PartitionLabels, make_labels
from fedflair.data.synthetic.synthesize import synthetic_source
from fedflair.data.synthetic.vocabulary import COARSE_LABELS
from fedflair.sampling import stream

PARTITION = "train"
NUM_PHOTOGRAPHS = 512
IMAGE_BYTES = 256 * 256 * 3
PIECE = 1024
WANTED = {"encoded bytes": 5.0, "pixels": 1.0}


def write_files(folder: Path, num_users: int, gigabytes: float, seed: int) -> None:
    """``folder``/packed.hdf5 and ``folder``/pfl.hdf5."""
    part = make_labels(NUM_USERS, seed)[PARTITION]
    photographs = [r.image for r in islice(synthetic_source("full", seed, num_users=400).records(), NUM_PHOTOGRAPHS)]
    num_images = int(part.user_offsets[num_users])
    which = stream(seed, "perf read").integers(0, NUM_PHOTOGRAPHS, num_images)
    write_packed(folder / "packed.hdf5", part, num_users, photographs, which)
    write_pfl(folder / "pfl.hdf5", part, num_users, photographs, which, gigabytes * 1e9)


def write_packed(
    path: Path, part: PartitionLabels, num_users: int, photographs: list[bytes], which: np.ndarray
) -> None:
    rows, labels = np.nonzero(part.coarse[: len(which)])
    fine_offsets = part.fine_offsets[: len(which) + 1]
    columns = PartitionColumns(
        user_ids=part.user_ids[:num_users],
        user_offsets=part.user_offsets[: num_users + 1],
        image_ids=part.image_ids[: len(which)],
        image_offsets=np.concatenate([[0], np.cumsum(np.array([*map(len, photographs)])[which])]),
        label_offsets=np.searchsorted(rows, np.arange(len(which) + 1)),
        label_indices=labels.astype(np.uint16),
        fine_label_offsets=fine_offsets,
        fine_label_indices=part.fine_indices[: fine_offsets[-1]].astype(np.uint16),
    )
    with writing.create(path) as writer:
        images, position = writer.partition(PARTITION, columns), 0
        for first in range(0, len(which), PIECE):
            piece = [photographs[k] for k in which[first : first + PIECE].tolist()]
            position = writer.write_images(images, position, piece)
        writer.metadata(StoreMetadata(COARSE_LABELS, tuple(FINE_NAMES), {}, {"source": "perf/read.py"}))


def write_pfl(
    path: Path, part: PartitionLabels, num_users: int, photographs: list[bytes], which: np.ndarray, budget: float
) -> None:
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(photograph))) for photograph in photographs])
    written: dict[int, list[h5py.Dataset]] = {}
    used = 0
    with h5py.File(path, "w") as file:
        for user in range(num_users):
            first, last = part.user_offsets[user : user + 2].tolist()
            group = file.create_group(f"{PARTITION}/{part.user_ids[user]}")
            same = written.setdefault(last - first, [])
            if used + (last - first) * IMAGE_BYTES <= budget:
                group["images"] = pixels[which[first:last]]
                same.append(group["images"])
                used += (last - first) * IMAGE_BYTES
            elif same:
                group["images"] = same[user % len(same)]
            else:
                group.create_dataset("images", (last - first, *pixels.shape[1:]), np.uint8)
            rows, labels = np.nonzero(part.coarse[first:last])
            group["labels_row"], group["labels_col"] = rows.astype(np.uint16), labels.astype(np.uint8)
            offsets = part.fine_offsets[first : last + 1]
            group["fine_grained_labels_row"] = np.repeat(np.arange(last - first), np.diff(offsets)).astype(np.uint16)
            group["fine_grained_labels_col"] = part.fine_indices[offsets[0] : offsets[-1]].astype(np.uint16)
            group["image_ids"] = np.array([str(number).encode() for number in part.image_ids[first:last].tolist()])
        file["metadata/label_mapping"] = json.dumps({name: k for k, name in enumerate(COARSE_LABELS)})
        file["metadata/fine_grained_label_mapping"] = json.dumps({name: k for k, name in enumerate(FINE_NAMES)})


def open_fedflair(folder: Path) -> object:
    dataset = fedflair.data.open(folder / "packed.hdf5")
    return dataset.users, dataset.label_names


def open_pfl(folder: Path) -> object:
    """What its benchmark does first: the label mapping, and each user's number of images."""
    with h5py.File(folder / "pfl.hdf5", "r") as file:
        users = {user_id: file[f"/{PARTITION}/{user_id}/image_ids"].shape[0] for user_id in file[f"/{PARTITION}"]}
        return users, json.loads(file["/metadata/label_mapping"][()])


def fedflair_encoded(dataset: Dataset, path: Path, user_ids: Iterable[str]) -> int:
    num_bytes = 0
    for user_id in user_ids:
        client = dataset.client(user_id)
        images = [encoded.tobytes() for encoded in client.encoded_images()]
        num_bytes += sum(map(len, images)) + client.targets().nbytes
    return num_bytes


def fedflair_pixels(dataset: Dataset, path: Path, user_ids: Iterable[str]) -> int:
    num_bytes = 0
    for user_id in user_ids:
        client = dataset.client(user_id)
        num_bytes += client.pixels().nbytes + client.targets().nbytes
    return num_bytes


def pfl_pixels(dataset: Dataset, path: Path, user_ids: Iterable[str]) -> int:
    num_bytes = 0
    for user_id in user_ids:
        with h5py.File(path, "r") as file:
            num_bytes += _read_pfl(file, user_id)
    return num_bytes


def pfl_pixels_open(dataset: Dataset, path: Path, user_ids: Iterable[str]) -> int:
    with h5py.File(path, "r") as file:
        return sum(_read_pfl(file, user_id) for user_id in user_ids)


def _read_pfl(file: h5py.File, user_id: str) -> int:
    inputs = np.array(file[f"/{PARTITION}/{user_id}/images"])
    rows = np.array(file[f"/{PARTITION}/{user_id}/labels_row"])
    columns = np.array(file[f"/{PARTITION}/{user_id}/labels_col"])
    targets = np.zeros((len(inputs), len(COARSE_LABELS)), dtype=np.float32)
    targets[rows, columns] = 1
    return inputs.nbytes + targets.nbytes


OPENERS: dict[str, Callable[[Path], object]] = {"fedflair": open_fedflair, "pfl-research": open_pfl}
READERS: dict[str, Callable[[Dataset, Path, Iterable[str]], int]] = {
    "fedflair, encoded bytes": fedflair_encoded,
    "fedflair, pixels": fedflair_pixels,
    "pfl-research, pixels": pfl_pixels,
    "pfl-research, pixels, its file kept open": pfl_pixels_open,
}


def measure_one(name: str, folder: Path, num_reads: int, seed: int, *, warm: bool) -> float:
    """Seconds to open, or users a second; imports, and opening before reading, are not counted.

    warm: read the same users once before, so that whatever is needed lies in the system's file cache.
    """
    if name in OPENERS:
        started = time.perf_counter()
        OPENERS[name](folder)
        return time.perf_counter() - started
    dataset = fedflair.data.open(folder / "packed.hdf5")
    users = dataset.users[PARTITION]
    chosen = [users[k] for k in stream(seed, "perf read users").integers(0, len(users), num_reads).tolist()]
    if warm:
        READERS[name](dataset, folder / "pfl.hdf5", chosen)
    started = time.perf_counter()
    READERS[name](dataset, folder / "pfl.hdf5", chosen)
    return num_reads / (time.perf_counter() - started)


def forget(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(names: Iterable[str], folder: Path, arguments: argparse.Namespace, *, cold: bool) -> dict[str, float]:
    measured: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(arguments.repeats):
        for name, values in measured.items():
            if cold:
                forget(folder)
            options = ["--folder", str(folder), "--num_reads", str(arguments.num_reads), "--seed", str(repeat)]
            command = [sys.executable, __file__, "--one", name, *options, *([] if cold else ["--warm"])]
            values.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {name: statistics.median(values) for name, values in measured.items()}


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    result: dict[str, Any] = {"num_users": arguments.num_users, "bytes": sizes, "cores": os.cpu_count()}
    for state, cold in (("warm", False), ("cold", True)):
        opened = measure(OPENERS, folder, arguments, cold=cold)
        rates = measure(READERS, folder, arguments, cold=cold)
        base = rates["pfl-research, pixels"]
        ratios = {wanted: rates[f"fedflair, {wanted}"] / base for wanted in WANTED}
        result[state] = {"seconds to open": opened, "users a second": rates, "ratios": ratios}
    warm, cold = (result[state]["users a second"] for state in ("warm", "cold"))
    base = cold["pfl-research, pixels"]
    result["ratios at full scale"] = {wanted: warm[f"fedflair, {wanted}"] / base for wanted in WANTED}
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{result['num_users']:,} users; {result['bytes']}; {result['cores']} cores")
    for state in ("warm", "cold"):
        part: dict[str, dict[str, float]] = result[state]
        for name, seconds in part["seconds to open"].items():
            print(f"{state}  {name:42} opens in {seconds:8.3f} s")
        for name, rate in part["users a second"].items():
            print(f"{state}  {name:42} {rate:10,.1f} users/s")
        for wanted, ratio in part["ratios"].items():
            print(f"{state}  ratio for {wanted}: {ratio:.2f} (wanted: at least {WANTED[wanted]:.0f})")
    full: dict[str, float] = result["ratios at full scale"]
    for wanted, ratio in full.items():
        print(f"fedflair warm, pfl-research cold: {wanted}: {ratio:.2f} (wanted: at least {WANTED[wanted]:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_users", type=int, default=PARTITION_SIZES[PARTITION].users)
    parser.add_argument("--num_reads", type=int, default=1000, help="users to read in a measurement")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="of pixels before users share them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=[*OPENERS, *READERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measured = measure_one(
            arguments.one, arguments.folder, arguments.num_reads, arguments.seed, warm=arguments.warm
        )
        print(measured)
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        write_files(Path(name), arguments.num_users, arguments.gigabytes, arguments.seed)
        result = compare(Path(name), arguments)
    print(json.dumps(result, indent=2)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
