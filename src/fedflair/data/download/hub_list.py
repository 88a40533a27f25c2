"""What the hub has at a revision: two questions, whose answers are believed in nothing that is not looked at."""

from __future__ import annotations

import http.client
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from fedflair.data.download.bounds import check_bound
from fedflair.data.download.connection import check_url, request
from fedflair.data.download.login import Login
from fedflair.data.download.patience import Refused, TryAgain, persist
from fedflair.data.download.plan import Tools
from fedflair.errors import ConfigError, DataError
from fedflair.system.json_text import parse_json
from fedflair.system.terminal import one_line

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_NEXT = re.compile(r"""<([^<>]*)>\s*;[^,]*\brel="?next"?""")


@dataclass(frozen=True)
class File:
    """A file of a commit. sha256: of a large one; git_blob: git's hash, which holds for the others."""

    path: str
    size: int
    sha256: str | None
    git_blob: str


def resolve(address: str, dataset: str, revision: str, login: Login, tools: Tools) -> str:
    """The commit behind a branch, tag or commit. Raises DataError where there is none, or no hub."""
    url = f"{address}/api/{dataset}/revision/{urllib.parse.quote(revision, safe='')}"
    what = f"{address}/{dataset} at {one_line(revision)}"
    answer, _ = _ask(url, what, login, tools)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _no_hub(what, "names no commit")
    return commit


def list_files(address: str, dataset: str, commit: str, login: Login, tools: Tools) -> list[File]:
    """All files of a commit. Raises DataError where the list is not one, or longer than FLAIR's can be."""
    url: str | None = f"{address}/api/{dataset}/tree/{commit}?recursive=true&expand=false"
    what = f"{address}/{dataset} at {commit}"
    files: list[File] = []
    num_entries = num_pages = 0
    while url is not None:
        num_pages += 1
        check_bound(num_pages, tools.bounds.pages, what, "pages of files")
        page, url = _ask(url, what, login, tools)
        if not isinstance(page, list):
            raise _no_hub(what, "lists no files")
        num_entries += len(page)
        check_bound(num_entries, tools.bounds.files, what, "files")
        files += [_file(entry, what) for entry in page if not _is_folder(entry)]
    return files


def _is_folder(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "directory"


def _file(entry: Any, what: str) -> File:
    try:
        path, size, blob = entry["path"], entry["size"], entry["oid"]
        sha256 = entry["lfs"]["oid"] if entry.get("lfs") is not None else None
        sound = isinstance(path, str) and type(size) is int and 0 <= size < 1 << 62
        sound = sound and re.fullmatch("[0-9a-f]{40}", blob) is not None
        sound = sound and (sha256 is None or re.fullmatch("[0-9a-f]{64}", sha256) is not None)
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise _no_hub(what, f"lists {one_line(repr(entry))[:100]}, which is no path with its size and hash")
    return File(path, size, sha256, blob)


def _ask(url: str, what: str, login: Login, tools: Tools) -> tuple[Any, str | None]:
    """The JSON at an address, and the address of the next page, if there is one."""
    most = tools.bounds.answer

    def ask() -> tuple[bytes, str | None]:
        try:
            with request(url, login.headers(url), tools.patience, most=most) as response:
                body = _read(response, most, what)
                return body, _next(url, response.headers.get("Link", ""), what)
        except Refused as error:
            if error.status in (407, 511) or (error.status in (401, 403) and "X-Error-Code" not in error.headers):
                raise
            raise _refusal(error, what) from error

    body, following = persist(ask, what, tools.patience, tools.stop, lambda: 0)
    try:
        return parse_json(body.decode()), following
    except ValueError as error:
        raise _no_hub(what, f"answers with what is no JSON: {one_line(repr(body[:60]))}") from error


def _read(response: http.client.HTTPResponse, most: int, what: str) -> bytes:
    body = response.read(most + 1)
    check_bound(len(body), most, what, "bytes or more")
    if response.length:
        raise TryAgain(f"the connection ended {response.length:,} bytes early")
    return body


def _next(url: str, links: str, what: str) -> str | None:
    found = _NEXT.search(links[:4000])
    try:
        return check_url(urllib.parse.urljoin(url, found[1]), "Link") if found else None
    except (ValueError, ConfigError) as error:
        raise _no_hub(what, "names a next page that is no address") from error


def _refusal(error: Refused, what: str) -> DataError:
    code = error.headers.get("X-Error-Code", "")
    if code == "RevisionNotFound":
        return DataError(f"{what}: no such revision; check --revision")
    if code == "GatedRepo":
        return DataError(f"{what}: access must be granted first; see its page, then 'hf auth login'")
    if code == "RepoNotFound":
        return DataError(f"{what}: no such dataset there; check --endpoint")
    return DataError(f"{what}: the server answered {error}; check --endpoint")


def _no_hub(what: str, found: str) -> DataError:
    return DataError(
        f"{what}: the server {found}; it does not speak as the hub does: check --endpoint, or log in to the network "
        "with a browser where it wants that"
    )
