"""``fedflair download``: the real dataset, resumable and verified."""

from __future__ import annotations

import fcntl
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from fedflair.data.download.plan import Item, Manifest, Plan, Request, Tools
from fedflair.data.download.transfer import Patience, RemoteFile, Report, fetch, partial_path
from fedflair.errors import ConfigError, DataError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LICENCE = """\
FLAIR: a federated-learning dataset of labelled photographs (Song et al., NeurIPS 2022).
Licence: the annotations are CC-BY-NC 4.0; each image has its owner's own licence, named in ATTRIBUTION.txt."""
_TOTAL = cast("TaskID", 0)  # the bar of all files, the first to be made
_MARGIN = 1 << 28  # bytes that stay free on the disk


def download(
    *,
    output: Path,
    from_: Literal["huggingface", "apple"] = "huggingface",
    raw: bool = False,
    only: Literal["labels"] | None = None,
    num_users: int | None = None,
    seed: int = 0,
    unpack: bool = False,
    endpoint: str | None = None,
    base_url: str | None = None,
    revision: str | None = None,
    num_connections: int = 8,
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
        endpoint: Address of a mirror of the hub.
        base_url: Address of a mirror of Apple's release.
        revision: The hub's branch, tag or commit. By default the commit that a first run found on main and recorded.
        num_connections: Files that come at once.
        yes: Do not ask whether to go on where a person sits at the terminal.
    """
    from rich.console import Console

    _check_options(from_, raw, unpack, endpoint, base_url, revision, only, num_users, num_connections)
    request = Request(output, raw, only == "labels", num_users, seed, unpack)
    stop = threading.Event()
    console = Console(markup=False, highlight=False, soft_wrap=True)
    with _locked(output), _progress(console) as progress:
        manifest = Manifest(output)
        patience = Patience(tell=console.print)

        def fetch_all(items: list[Item]) -> None:
            _fetch_all(items, output, manifest, patience, stop, num_connections, progress, console)

        def reporter(name: str, size: int | None) -> Report:
            return _reporter(progress, name, size)

        tools = Tools(patience, stop, num_connections, manifest, fetch_all, reporter)
        try:
            if from_ == "apple":
                from fedflair.data.download.apple import plan_apple

                plan = plan_apple(request, tools, base_url)
            else:
                from fedflair.data.download.huggingface import plan_huggingface

                plan = plan_huggingface(request, tools, endpoint, revision or manifest.revision)
            _announce(plan, request, console)
            _check_disk(plan, output)
            if not yes and sys.stdin.isatty():
                _ask(progress, console)
            selection = {"source": from_, "raw": raw, "num_users": num_users, "seed": seed if num_users else None}
            manifest.settle(selection, plan.where)
            progress.update(_TOTAL, total=plan.size, visible=plan.size is not None)
            progress.start()
            plan.run()
        except KeyboardInterrupt as error:
            stop.set()
            raise Interrupted("download: stopped; run the same command again to go on from here") from error
        except OSError as error:
            raise DataError(f"{error.filename or output}: {error.strerror or error}; then run again") from error
        finally:
            stop.set()
    console.print(f"Complete: {output}. Next: fedflair prepare --source {output} --output STORE")


def _check_options(
    from_: str,
    raw: bool,
    unpack: bool,
    endpoint: str | None,
    base_url: str | None,
    revision: str | None,
    only: str | None,
    num_users: int | None,
    num_connections: int,
) -> None:
    for option, value, source in (
        ("raw", raw, "apple"),
        ("unpack", unpack, "apple"),
        ("base_url", base_url, "apple"),
        ("endpoint", endpoint, "huggingface"),
        ("revision", revision, "huggingface"),
    ):
        if value and from_ != source:
            raise ConfigError(f"{option}: only together with --from {source}")
    if num_users is not None and num_users < 1:
        raise ConfigError(f"num_users: {num_users} is less than 1")
    if num_users is not None and only is not None:
        raise ConfigError("num_users: not together with --only labels, which takes all users")
    if num_connections < 1:
        raise ConfigError(f"num_connections: {num_connections} is less than 1")


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keeps a second download out of the folder; the kernel lets go of the lock however this process ends."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / ".download.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"{output}: another download is writing there; wait for it to end") from error
            yield
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"output: {output} is a file; name a folder") from error
    except PermissionError as error:
        raise DataError(f"{error.filename}: cannot be written ({error.strerror}); choose another folder") from error


def _announce(plan: Plan, request: Request, console: Console) -> None:
    console.print(LICENCE)
    what = "labels only" if request.labels_only else f"{plan.images} images and labels"
    users = f" of {request.num_users:,} users" if request.num_users else ""
    place = ", ".join(f"{name} {value}" for name, value in plan.where.items())
    size = "unknown size" if plan.size is None else human(plan.size)
    console.print(f"To fetch: {what}{users}, {size}, from {place}")


def _check_disk(plan: Plan, output: Path) -> None:
    """Raises DataError where the files that are still to come do not fit; sparse and partial files count as come."""
    if plan.disk is None:
        return
    there = sum(file.stat().st_blocks * 512 for file in output.rglob("*") if file.is_file())
    free = shutil.disk_usage(output).free
    if plan.disk - there + _MARGIN > free:
        raise DataError(
            f"{output}: {human(max(plan.disk - there, 0))} are still to come and {human(free)} are free; "
            "make room, choose another disk, or take fewer users with --num_users"
        )


def _ask(progress: Progress, console: Console) -> None:
    try:
        answer = console.input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Interrupted("download: nothing was fetched")


def human(size: int) -> str:
    """Bytes in a unit that fits, in powers of 1000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _fetch_all(
    items: list[Item],
    output: Path,
    manifest: Manifest,
    patience: Patience,
    stop: threading.Event,
    num_connections: int,
    progress: Progress,
    console: Console,
) -> None:
    """Several at once; the first failure stops the others, which keep what they have."""
    with ThreadPoolExecutor(num_connections) as pool:
        try:
            futures: list[Future[None]] = [
                pool.submit(_fetch_one, item, output, manifest, patience, stop, progress, console) for item in items
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception() is not None]
        except KeyboardInterrupt:
            stop.set()
            raise
        if failed:
            stop.set()
            pool.shutdown(cancel_futures=True)
    for future in failed:
        future.result()


def _fetch_one(
    item: Item,
    output: Path,
    manifest: Manifest,
    patience: Patience,
    stop: threading.Event,
    progress: Progress,
    console: Console,
) -> None:
    path = output / item.name
    report = _reporter(progress, item.name, item.size)
    entry = manifest.entry(item.name)
    if entry is not None and (item.size is None or entry["size"] == item.size):
        unchanged = item.finish is None and path.is_file() and path.stat().st_size == entry["size"]
        if unchanged or "unpacked" in entry:
            report(entry["size"])
            return
    if _adopt(item, path):
        report(path.stat().st_size)
    else:
        fetch(RemoteFile(item.url, path, item.size, item.check, item.headers), patience, stop, report)
    size = path.stat().st_size
    finished = item.finish(path) if item.finish is not None else {}
    manifest.add(item.name, {"size": size, **finished})
    if not console.is_terminal:
        console.print(f"{item.name}: {human(size)}, verified")


def _adopt(item: Item, path: Path) -> bool:
    """Whether a file that the manifest does not know is what it should be; if it is not, it is fetched again."""
    if (
        not path.is_file()
        or partial_path(path).exists()
        or (item.size is not None and path.stat().st_size != item.size)
    ):
        return False
    try:
        if item.check is not None:
            item.check(path)
    except DataError:
        return False
    return item.check is not None or item.size is not None


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """Bars that are drawn once they are started, and only on a terminal; they end with the block."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    progress.add_task("all files", total=None, visible=False)
    try:
        yield progress
    finally:
        progress.stop()


def _reporter(progress: Progress, name: str, size: int | None) -> Report:
    """A bar for one file, which is seen while the file is under way; the bar of all files moves with it."""
    task = progress.add_task(name, total=size, visible=False)
    last = 0

    def report(there: int) -> None:
        nonlocal last
        progress.update(task, completed=there, visible=size is None or there < size)
        progress.advance(_TOTAL, there - last)
        last = there

    return report
