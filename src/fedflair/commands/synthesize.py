"""``fedflair synthesize``: FLAIR's synthetic twin, in any of the forms FLAIR comes in."""

from __future__ import annotations

from pathlib import Path

from fedflair.commands.prepare import words_of
from fedflair.commands.progress import track
from fedflair.data.synthetic.forms import Format, ScaleName
from fedflair.system.terminal import say


def synthesize(
    *,
    output: Path,
    scale: ScaleName = "mini",
    num_users: int | None = None,
    seed: int = 0,
    format: Format = "packed",
    processes: int | None = None,
) -> None:
    """Make a FLAIR-like dataset with no network.

    Args:
        output: The store to write (format packed), or the folder, which must not exist yet.
        scale: mini, about 400 users with enough images of every coarse label; full, all of FLAIR's counts.
        num_users: Another number of users, from 10 to 51414; counts keep the scale's proportions.
        seed: The same seed gives the same users, labels and photographs.
        format: packed, a store for training; huggingface, the hub's parquet files; apple, Apple's release; all, a
            folder with flair.hdf5, huggingface and apple.
        processes: Processes that draw photographs; by default as many as there are cores.
    """
    # What draws takes a second to load, which a mistyped option need not wait for.
    from fedflair.data.synthetic import synthesize as synthesis

    made = synthesis.synthesize(
        output=output, scale=scale, num_users=num_users, seed=seed, format=format, processes=processes, track=track
    )
    if made.packed is not None:
        say(words_of(made.packed))
        return
    release = output / "huggingface" if format == "all" else output
    say(f"{output}: {made.num_images:,} images")
    say(f"Next: fedflair prepare --source {release} --output {output.with_name('flair.hdf5')}")
