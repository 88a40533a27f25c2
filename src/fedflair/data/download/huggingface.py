"""FLAIR from the hub, or a mirror of it: a list of files with their sizes and hashes, and the files.

Both come through `connection.py`. huggingface_hub (as of 2.4) would start a file of 460 MB from its first byte after a
kill and compare its size but not its hash; its lists have no bound, and it sends its login to any endpoint.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from fedflair.data.download.connection import check_url
from fedflair.data.download.hub_list import File, list_files, resolve
from fedflair.data.download.login import Login
from fedflair.data.download.plan import MANIFEST, Item, Plan, Request, Tools
from fedflair.data.sources.archives import safe_name
from fedflair.errors import DataError
from fedflair.system.terminal import printable

REPOSITORY = "apple/flair"
# A branch, because the commit behind it is not known here: the first run resolves it and records the commit in
# download.json, and later runs into the same folder stay with that commit.
REVISION = "main"
_READ = 1 << 20
_OURS = re.compile(r"\..*|.*\.(partial|partial\.json|blocks|blocks\.journal)|" + re.escape(MANIFEST))


def plan_huggingface(request: Request, tools: Tools) -> Plan:
    """Lists the repository at a revision. Raises DataError where the hub does not have it or cannot be reached."""
    # Inside the functions of this file, because huggingface_hub loads slowly and Apple's release does without.
    from huggingface_hub import constants

    address = check_url(request.endpoint or constants.ENDPOINT, "endpoint")
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"{address}: the hub is switched off by HF_HUB_OFFLINE; unset it")
    login = Login(address, opted_in=request.send_token)
    revision = request.revision or tools.manifest.revision or REVISION
    dataset = f"datasets/{REPOSITORY}"
    commit = resolve(address, dataset, revision, login, tools)
    files = list_files(address, dataset, commit, login, tools)
    items = [_item(file, commit, address, login, tools) for file in files if not _is_hidden(file.path)]
    shards = [item for item in items if item.name.endswith(".parquet")]
    if not shards:
        raise DataError(f"{address}/datasets/{REPOSITORY} at {commit}: holds no parquet files; check --revision")
    for group in (items, shards):
        names = [item.name if group is items else Path(item.name).name for item in group]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise DataError(f"{address}/datasets/{REPOSITORY} at {commit}: lists {doubled} twice; try another mirror")
    texts = [item for item in items if item not in shards]
    where = {"address": address, "repository": REPOSITORY, "revision": commit}
    total = sum(item.size or 0 for item in items)
    if request.num_users is None and not request.labels_only:
        return Plan(where, total, total, "256x256", lambda: tools.fetch(items))

    # Here, because it loads pyarrow, which whole files do without.
    from fedflair.data.download.rows import fetch_labels, fetch_users

    def run() -> None:
        tools.fetch(texts)
        if request.labels_only:
            fetch_labels(shards, request, tools)
        else:
            fetch_users(shards, request, tools)

    # How much of the shards the labels, or some users' rows, take is seen only when they are read.
    return Plan(where, None, None, "256x256", run)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in path.split("/"))


def _item(file: File, commit: str, address: str, login: Login, tools: Tools) -> Item:
    from huggingface_hub import hf_hub_url

    where = f"{address}: {printable(repr(file.path))}"
    name = safe_name(file.path, where).as_posix()
    if printable(name) != name or "\n" in name or "\t" in name:
        raise DataError(f"{where}: its name cannot be shown; do not trust where it comes from")
    if _OURS.fullmatch(Path(name).name):
        raise DataError(f"{where}: is named as what a download itself writes; do not trust where it comes from")
    url = hf_hub_url(REPOSITORY, name, repo_type="dataset", revision=commit, endpoint=address)
    digest = file.sha256

    def check(path: Path) -> None:
        found = _sha256(path) if digest is not None else _git_blob(path)
        expected = digest if digest is not None else file.git_blob
        if found != expected:
            raise DataError(f"{url}: its hash is {found}, the hub lists {expected}; try again later")

    most = tools.bounds.shard if name.endswith(".parquet") else tools.bounds.text
    return Item(name, url, file.size, check, login.headers(url), most=most)


def _sha256(path: Path) -> str:
    """Of a large file, as git-lfs names it."""
    return _digest(path, hashlib.sha256())


def _git_blob(path: Path) -> str:
    """Of a small file, as git names it."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _digest(path: Path, state: Any) -> str:
    with path.open("rb") as file:
        while piece := file.read(_READ):
            state.update(piece)
    return str(state.hexdigest())
