"""The real dataset: a plan is made with the source's server, announced, and carried out."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedflair.data.download.apple import plan_apple
from fedflair.data.download.bounds import Bounds
from fedflair.data.download.huggingface import plan_huggingface
from fedflair.data.download.patience import GO_ON, Patience
from fedflair.data.download.plan import Item, Manifest, Plan, Request, Tools, Watcher
from fedflair.data.download.transfer import RemoteFile, fetch, partial_path
from fedflair.errors import ConfigError, DataError, Interrupted
from fedflair.system.files import disk_errors, why
from fedflair.system.locks import Held, locked

PLANS: dict[str, Callable[[Request, Tools], Plan]] = {"huggingface": plan_huggingface, "apple": plan_apple}
LOCK = ".download.lock"
_MARGIN = 1 << 28  # bytes that stay free on the disk


def download(request: Request, watcher: Watcher) -> None:
    """Fetches what is asked for into ``request.output``; what an earlier call has left there is not fetched again.

    Raises DataError where the server or the disk fails, ConfigError where the folder holds another selection,
    Interrupted where the user stops it or says no.
    """
    output, stop = request.output, threading.Event()
    with _locked(output):
        manifest = Manifest(output)

        def fetch_all(items: list[Item]) -> None:
            _fetch_all(items, request, tools, watcher)

        patience = Patience(min_rate=request.min_rate, tell=watcher.tell)
        bounds = Bounds().raised(request.raise_limits)
        tools = Tools(patience, bounds, stop, manifest, fetch_all, watcher.bar)
        try:
            plan = PLANS[request.source](request, tools)
            watcher.announce(plan)
            _check_disk(plan, output)
            watcher.confirm()
            seed = request.seed if request.num_users else None
            selection = {"source": request.source, "raw": request.raw, "num_users": request.num_users, "seed": seed}
            manifest.settle(selection, plan.where)
            watcher.start(plan.size)
            plan.run()
        except KeyboardInterrupt as error:
            stop.set()
            raise Interrupted(f"download: stopped; {GO_ON}") from error
        except OSError as error:
            raise DataError(f"{error.filename or output}: {why(error)}; then run again") from error
        finally:
            stop.set()


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keeps a second download out of the folder, where its file system has locks."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; name a folder")
    with ExitStack() as stack:
        with disk_errors(output):
            output.mkdir(parents=True, exist_ok=True)
        try:
            with disk_errors(output / LOCK):
                stack.enter_context(locked(output / LOCK))
        except Held as error:
            process = "another process" if error.pid is None else f"process {error.pid}"
            raise DataError(f"{output}: another download is writing there ({process}); wait for it to end") from error
        yield


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


def human(size: int) -> str:
    """Bytes in a unit that fits, in powers of 1000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _fetch_all(items: list[Item], request: Request, tools: Tools, watcher: Watcher) -> None:
    """Several at once; the first failure stops the others, which keep what they have."""
    with ThreadPoolExecutor(request.num_connections) as pool:
        try:
            futures: list[Future[None]] = [
                pool.submit(_fetch_one, item, request.output, tools, watcher) for item in items
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception() is not None]
        except KeyboardInterrupt:
            tools.stop.set()
            raise
        if failed:
            tools.stop.set()
            pool.shutdown(cancel_futures=True)
    for future in failed:
        future.result()


def _fetch_one(item: Item, output: Path, tools: Tools, watcher: Watcher) -> None:
    path = output / item.name
    report = watcher.bar(item.name, item.size)
    entry = tools.manifest.entry(item.name)
    if entry is not None and (item.size is None or entry["size"] == item.size):
        unchanged = item.finish is None and tools.manifest.holds(item.name)
        if unchanged or "unpacked" in entry:
            report(entry["size"])
            return
    if _adopt(item, path):
        report(path.stat().st_size)
    else:
        remote = RemoteFile(item.url, path, item.size, item.check, item.headers, item.most)
        fetch(remote, tools.patience, tools.stop, report)
    size = path.stat().st_size
    finished = item.finish(path) if item.finish is not None else {}
    tools.manifest.add(item.name, {"size": size, **finished})
    watcher.done(item.name, size)


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
