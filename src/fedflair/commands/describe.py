"""``fedflair describe``: the tables of a dataset, in the terminal, as JSON or as a page."""

from __future__ import annotations

from pathlib import Path

from fedflair.data.describe.comparison import as_plain, published_beside
from fedflair.data.describe.tables import tables
from fedflair.data.store.packed import open_store
from fedflair.data.store.verify import verify as check
from fedflair.errors import ConfigError
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console
from fedflair.system.terminal import say


def describe(store: Path, *, json: bool = False, verify: bool = False, output: Path | None = None) -> None:
    """Show a dataset's users, images, labels and their distributions; beside FLAIR's where it is FLAIR-like.

    Args:
        store: A packed store, as written by prepare or synthesize.
        json: Print one machine-readable JSON object instead of tables.
        verify: First read every image, and stop where one is not as it was written.
        output: Also write plots and a page with a browsable gallery, index.html, into this folder.
    """
    # Here, because it loads torch, and a name that was mistyped is told at once.
    from fedflair.data.describe.statistics import store_statistics

    opened = open_store(store)
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; name a folder")
    if verify:
        check(opened)
    by_partition = store_statistics(opened)
    plain = as_plain(by_partition)
    console = Console()
    found = {"store": str(store), "fingerprint": opened.fingerprint, "verified": verify}
    if json:
        say(dumps(found | {"partitions": plain, "published": published_beside(plain) or None}, indent=2))
    else:
        for table in tables(plain):
            console.print(table)
        console.say(f"{opened.fingerprint}{', every image as it was written' if verify else ''}")
    if output is not None:
        # Here, because it loads matplotlib, which the tables do without.
        from fedflair.data.describe.page import write_page

        page = write_page(opened, by_partition, output)
        if not json:
            console.say(f"Plots and gallery: {page}")
