"""``python -m dataset.flair.download_preprocess``: download FLAIR and write the HDF5 file that training reads."""

from __future__ import annotations

import sys
from pathlib import Path

from fedflair.cli import guarded, run
from fedflair.commands.arguments import call


def download_preprocess(
    *,
    output_file: Path,
    source: str | None = None,
    download_dir: Path | None = None,
    not_group_data_by_user: bool = False,
    num_users: int | None = None,
) -> None:
    """Write FLAIR as one HDF5 file, downloading it first where no source is given.

    Args:
        output_file: The file to write.
        source: A folder or file that already holds FLAIR, or the word synthetic for a FLAIR-like dataset.
        download_dir: Where the release is kept; a folder flair-release beside the output file if not given.
        not_group_data_by_user: Write one group an image, for central training with other tools.
        num_users: With a synthetic source, the number of users.
    """
    packed = output_file.with_name(f"{output_file.stem}.packed.hdf5") if not_group_data_by_user else output_file
    if source == "synthetic":
        users = [] if num_users is None else ["--num_users", str(num_users)]
        steps = [["synthesize", "--output", str(packed), *users]]
    else:
        release = Path(source) if source else download_dir or output_file.parent / "flair-release"
        steps = [] if source else [["download", "--output", str(release)]]
        steps.append(["prepare", "--source", str(release), "--output", str(packed)])
    if not_group_data_by_user:
        steps.append(["convert", str(packed), str(output_file), "--layout", "ml-flair-central"])
    for step in steps:
        run(step)
    if not_group_data_by_user:
        packed.unlink()


if __name__ == "__main__":
    sys.exit(guarded(lambda: call(download_preprocess, "download_preprocess", sys.argv[1:])))
