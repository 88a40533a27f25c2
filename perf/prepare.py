"""Preprocessing side by side: fedflair prepare, and the procedure of pfl-research's script, on the same parquet files.

    python perf/prepare.py                          # 8,000 generated JPEGs like photographs, of about 13 KB
    python perf/prepare.py --source data/flair-release/data

The procedure is implemented here anew, after its description: decode each row with Pillow while counting labels,
decode again, stack the pixels of each user and write them uncompressed to HDF5. What its library adds (building an
Arrow cache, progress bars) is left out, which favours it. Each runs in a process of its own, alternately; the median
of the repeats is shown.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PARTITION_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
LABELS = [f"label_{k:02d}" for k in range(17)]
FINE_PER_LABEL = 20
ROWS_PER_GROUP = 100
FIELD_SIDE = 2048


def generate(folder: Path, num_images: int, seed: int) -> None:
    """Parquet files in the hub's form: JPEGs with a photograph's spectrum and FLAIR's mean size and label counts."""
    generator = np.random.default_rng(seed)
    field = _natural_field(generator)
    image_id = 0
    for partition, share in PARTITION_SHARES.items():
        rows = []
        count = round(num_images * share)
        users = 1 + generator.integers(0, max(count // 8, 1), size=count)
        for user in users.tolist():
            image_id += 1
            rows.append(_row(f"{user}@{partition}", image_id, partition, field, generator))
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, folder / f"{partition}-00000-of-00001.parquet", row_group_size=ROWS_PER_GROUP)


def _natural_field(generator: np.random.Generator) -> np.ndarray:
    """A large colour texture with the 1/f spectrum of photographs, to cut images from: uint8 [2048, 2048, 3]."""
    frequency = np.hypot(np.fft.fftfreq(FIELD_SIDE)[:, None], np.fft.rfftfreq(FIELD_SIDE)[None, :])
    frequency[0, 0] = 1.0
    channels = []
    shared = generator.standard_normal((FIELD_SIDE, FIELD_SIDE))
    for _ in range(3):
        noise = shared + 0.3 * generator.standard_normal((FIELD_SIDE, FIELD_SIDE))
        texture = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.2, s=noise.shape)
        channels.append(128 + 50 * texture / texture.std())
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def _row(user_id: str, image_id: int, partition: str, field: np.ndarray, generator: np.random.Generator) -> dict:
    top, left = generator.integers(0, FIELD_SIDE - 256, size=2)
    buffer = io.BytesIO()
    Image.fromarray(field[top : top + 256, left : left + 256]).save(buffer, "JPEG", quality=70)
    coarse = sorted(generator.choice(len(LABELS), size=generator.integers(2, 5), replace=False).tolist())
    fine = sorted({f"{LABELS[k]}_{generator.integers(FINE_PER_LABEL):02d}" for k in coarse * 2})
    return {
        "user_id": user_id,
        "image_id": image_id,
        "labels": [LABELS[k] for k in coarse],
        "partition": partition,
        "fine_grained_labels": fine,
        "image": {"bytes": buffer.getvalue(), "path": f"{image_id}.jpg"},
    }


def run_fedflair(source: Path, output: Path) -> None:
    from fedflair.data.preparation.prepare import prepare

    prepare(source=source, output=output)


def run_pfl_procedure(source: Path, output: Path) -> None:
    """The compared procedure; see the module's docstring."""
    tables = {}
    for partition in PARTITION_SHARES:
        files = sorted(source.glob(f"{partition}-*.parquet"))
        tables[partition] = pa.concat_tables([pq.read_table(file) for file in files])
    counts: Counter[str] = Counter()
    fine_counts: Counter[str] = Counter()
    rows_of: dict[str, dict[str, list[int]]] = {partition: defaultdict(list) for partition in tables}
    for partition, table in tables.items():
        for index in range(table.num_rows):
            row = _decoded_row(table, index)
            rows_of[partition][row["user_id"]].append(index)
            counts.update(row["labels"])
            fine_counts.update(row["fine_grained_labels"])
    label_index = {name: k for k, name in enumerate(sorted(counts))}
    fine_index = {name: k for k, name in enumerate(sorted(fine_counts))}
    with h5py.File(output, "w") as file:
        for partition, users in rows_of.items():
            for user_id, indices in users.items():
                rows = [_decoded_row(tables[partition], index) for index in indices]
                group = file.create_group(f"{partition}/{user_id}")
                group["labels_row"] = np.array([k for k, r in enumerate(rows) for _ in r["labels"]], dtype=np.uint16)
                group["labels_col"] = np.array([label_index[n] for r in rows for n in r["labels"]], dtype=np.uint8)
                fine = [(k, fine_index[n]) for k, r in enumerate(rows) for n in r["fine_grained_labels"]]
                group["fine_grained_labels_row"] = np.array([k for k, _ in fine], dtype=np.uint16)
                group["fine_grained_labels_col"] = np.array([n for _, n in fine], dtype=np.uint16)
                group["image_ids"] = np.array([r["image_id"] for r in rows], dtype="S")
                group.create_dataset("images", data=np.stack([np.asarray(r["image"]) for r in rows]))
        file["metadata/label_mapping"] = json.dumps(label_index)
        file["metadata/fine_grained_label_mapping"] = json.dumps(fine_index)


def _decoded_row(table: pa.Table, index: int) -> dict:
    row = table.slice(index, 1).to_pylist()[0]
    row["image"] = Image.open(io.BytesIO(row["image"]["bytes"]))
    row["image"].load()
    return row


PROCEDURES = {"fedflair": run_fedflair, "pfl-research's procedure": run_pfl_procedure}


def measure(name: str, source: Path, output: Path) -> dict[str, float]:
    """Seconds, peak memory and output size of one procedure in a fresh process (imports are not counted)."""
    command = [sys.executable, __file__, "--one", name, "--source", str(source), "--output", str(output)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(finished.stdout.splitlines()[-1])
    measured["bytes"] = output.stat().st_size
    output.unlink()
    return measured


def measure_one(name: str, source: Path, output: Path) -> None:

    started = time.perf_counter()
    PROCEDURES[name](source, output)
    seconds = time.perf_counter() - started
    # Not getrusage: its peak includes the parent's memory at the moment of the fork.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": peak}))


def compare(source: Path, folder: Path, repeats: int) -> None:
    files = sorted(source.glob("*.parquet"))
    num_images = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
    print(f"{num_images:,} images, {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB of parquet")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in PROCEDURES}
    for _ in range(repeats):
        for name, runs in results.items():
            runs.append(measure(name, source, folder / "output.hdf5"))
    rate, size = {}, {}
    for name, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        rate[name], size[name] = num_images / seconds, runs[0]["bytes"]
        peak = max(run["peak"] for run in runs)
        print(
            f"{name:25} {rate[name]:9,.0f} images/s  {seconds:7.2f} s  {size[name] / 1e6:8,.1f} MB written  "
            f"{peak / 1e6:6,.0f} MB peak memory"
        )
    ours, theirs = PROCEDURES
    print(f"speed ratio {rate[ours] / rate[theirs]:.1f} (wanted: at least 20)")
    print(f"size ratio 1/{size[theirs] / size[ours]:.1f} (wanted: at most 1/10)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of parquet files; generated where not given")
    parser.add_argument("--num_images", type=int, default=8000, help="how many images to generate")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", choices=list(PROCEDURES), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure_one(arguments.one, arguments.source, arguments.output)
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        source = arguments.source
        if source is None:
            source = folder / "data"
            source.mkdir()
            generate(source, arguments.num_images, arguments.seed)
        compare(source, folder, arguments.repeats)


if __name__ == "__main__":
    main()
