"""``fedflair download``: the real dataset, resumable and verified."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Literal

from fedflair.commands.progress import transfer_bars
from fedflair.data.download import run
from fedflair.data.download.plan import Plan, Request, Watcher
from fedflair.data.download.run import human
from fedflair.errors import Interrupted
from fedflair.system.console import Console

LICENCE = """\
FLAIR: a federated-learning dataset of labelled photographs (Song et al., NeurIPS 2022).
Licence: the annotations are CC-BY-NC 4.0; each image has its owner's own licence, named in ATTRIBUTION.txt."""


def download(
    *,
    output: Path,
    from_: Literal["huggingface", "apple"] = Request.source,
    raw: bool = False,
    only: Literal["labels"] | None = None,
    num_users: int | None = None,
    seed: int = Request.seed,
    unpack: bool = False,
    endpoint: str | None = None,
    base_url: str | None = None,
    revision: str | None = None,
    num_connections: int = Request.num_connections,
    send_token: bool = False,
    min_rate: float = Request.min_rate,
    raise_limits: float = Request.raise_limits,
    yes: bool = False,
) -> None:
    """Fetch FLAIR; run the same command again to go on after a stop.

    Args:
        output: The folder to fetch into; prepare takes it as its --source.
        from_: huggingface (parquet files, 5.7 GB) or apple (43 archives and two label files).
        raw: The full-size images (about 1.2 TB) instead of those of 256x256; apple only.
        only: labels, to leave out the images.
        num_users: Only so many users, each with all images, every partition keeping its share.
        seed: Which users num_users takes.
        unpack: Unpack each archive and remove it; apple only. prepare reads the archives as they are.
        yes: Do not ask whether to go on where a person sits at the terminal.

    Where from:
        endpoint: Address of a mirror of the hub.
        base_url: Address of a mirror of Apple's release.
        revision: The hub's branch, tag or commit. By default the commit that a first run found on main and recorded.

    The connection:
        num_connections: Files that come at once.
        send_token: Send the hub's token to the endpoint, too, which must be https; else only the hub itself gets it.
        min_rate: Bytes a second below which, over a minute, a connection counts as dead; 0 bears with any.
        raise_limits: So many times what FLAIR can be is taken from a server: sizes, numbers, what archives unpack to.
    """
    request = Request(
        output=output,
        source=from_,
        raw=raw,
        labels_only=only == "labels",
        num_users=num_users,
        seed=seed,
        unpack=unpack,
        endpoint=endpoint,
        base_url=base_url,
        revision=revision,
        num_connections=num_connections,
        send_token=send_token,
        min_rate=min_rate,
        raise_limits=raise_limits,
    )
    console = Console()
    with transfer_bars(console) as bars:
        watcher = Watcher(
            tell=console.say,
            announce=partial(_announce, request=request, console=console),
            confirm=partial(_confirm, yes=yes, console=console),
            start=bars.start,
            bar=bars.add,
            done=partial(_done, console=console),
        )
        run.download(request, watcher)
    console.say(f"Complete: {output}. Next: fedflair prepare --source {output} --output STORE")


def _announce(plan: Plan, *, request: Request, console: Console) -> None:
    console.say(LICENCE)
    what = "labels only" if request.labels_only else f"{plan.images} images and labels"
    users = f" of {request.num_users:,} users" if request.num_users else ""
    place = ", ".join(f"{name} {value}" for name, value in plan.where.items())
    size = "unknown size" if plan.size is None else human(plan.size)
    console.say(f"To fetch: {what}{users}, {size}, from {place}")


def _confirm(*, yes: bool, console: Console) -> None:
    """Raises Interrupted where a person at the terminal does not say yes."""
    if yes or not sys.stdin.isatty():
        return
    try:
        answer = console.input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Interrupted("download: nothing was fetched")


def _done(name: str, size: int, *, console: Console) -> None:
    """A line where there are no bars."""
    if not console.is_terminal:
        console.say(f"{name}: {human(size)}, verified")
