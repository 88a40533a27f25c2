"""FLAIR from the hub, or a mirror of it.

huggingface_hub lists the files with their sizes and hashes; the bytes come through `transfer.py`,
because huggingface_hub (as of 2.4) starts a file of 460 MB from its first byte after a kill, and compares its size
but not its hash.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fedflair.data.download.plan import Item, Plan, Request, Tools
from fedflair.data.download.transfer import Patience, TryAgain, check_url, persist
from fedflair.data.sources.archives import safe_name
from fedflair.errors import DataError

REPOSITORY = "apple/flair"
# A branch, because the commit behind it is not known here: the first run resolves it and records the commit in
# download.json, and later runs into the same folder stay with that commit.
REVISION = "main"
_READ = 1 << 20
T = TypeVar("T")


def plan_huggingface(request: Request, tools: Tools) -> Plan:
    """Lists the repository at a revision. Raises DataError where the hub does not have it or cannot be reached."""
    # Inside the functions of this file, because huggingface_hub loads slowly and Apple's release does without.
    from huggingface_hub import HfApi, constants

    address = check_url(request.endpoint or constants.ENDPOINT, "endpoint")
    api = HfApi(endpoint=address)
    patience, stop = tools.patience, tools.stop
    revision = request.revision or tools.manifest.revision or REVISION

    def ask_revision() -> str:
        return str(api.dataset_info(REPOSITORY, revision=revision).sha)

    def ask_files() -> list[Any]:
        tree = api.list_repo_tree(REPOSITORY, recursive=True, revision=commit, repo_type="dataset")
        return [file for file in tree if hasattr(file, "size")]

    commit = _asked(ask_revision, f"{address}/datasets/{REPOSITORY} at {revision}", patience, stop)
    files = _asked(ask_files, f"{address}/datasets/{REPOSITORY} at {commit}", patience, stop)
    items = [_item(file, commit, address) for file in files if not Path(file.path).name.startswith(".")]
    shards = [item for item in items if item.name.endswith(".parquet")]
    if not shards:
        raise DataError(f"{address}/datasets/{REPOSITORY} at {commit}: holds no parquet files; check --revision")
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


def _item(file: Any, commit: str, address: str) -> Item:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    name = safe_name(file.path, f"{address}: {file.path!r}").as_posix()
    url = hf_hub_url(REPOSITORY, name, repo_type="dataset", revision=commit, endpoint=address)
    digest = file.lfs.sha256 if file.lfs is not None else None

    def check(path: Path) -> None:
        found = _sha256(path) if digest is not None else _git_blob(path)
        expected = digest if digest is not None else file.blob_id
        if found != expected:
            raise DataError(f"{url}: its hash is {found}, the hub lists {expected}; try again later")

    return Item(name, url, int(file.size), check, build_hf_headers())


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


def _asked(call: Callable[[], T], what: str, patience: Patience, stop: threading.Event) -> T:
    """Calls huggingface_hub until it works; its errors become DataError, or another try where they may pass."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    transport: tuple[type[Exception], ...] = (OSError, *_transport_errors())

    def guarded() -> T:
        try:
            return call()
        except RevisionNotFoundError as error:
            raise DataError(f"{what}: no such revision; check --revision") from error
        except GatedRepoError as error:
            raise DataError(f"{what}: access must be granted first; see its page, then 'hf auth login'") from error
        except RepositoryNotFoundError as error:
            raise DataError(f"{what}: no such dataset there; check --endpoint") from error
        except OfflineModeIsEnabled as error:
            raise DataError(f"{what}: the hub is switched off by HF_HUB_OFFLINE; unset it") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status is not None and status < 500 and status not in (408, 429):
                raise DataError(f"{what}: the server answered {status}; check --endpoint") from error
            raise TryAgain(f"status {status}") from error
        except transport as error:
            raise TryAgain(" ".join(str(error).split())[:200]) from error

    return persist(guarded, what, patience, stop, lambda: 0)


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library below huggingface_hub raises; it passes that through, and has changed the library twice."""
    found: list[type[Exception]] = []
    for name, error in (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException")):
        with suppress(ImportError):
            found.append(getattr(importlib.import_module(name), error))
    return tuple(found)
