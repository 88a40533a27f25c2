"""A hub, and a certificate, for the tests of downloading."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.download.fault_server import serving
from tests.data.download.raw_server import Certificate, make_certificate
from tests.data.download.small_hub import USERS, Hub, shard


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates but those of a test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def repository() -> dict[str, bytes]:
    users = {name: [f"{name}-{k}@N0{k}" for k in range(number)] for name, number in USERS.items()}
    return {
        "data/train-00000-of-00002.parquet": shard("train", users["train"][:6], 0),
        "data/train-00001-of-00002.parquet": shard("train", users["train"][6:], 1),
        "data/val-00000-of-00001.parquet": shard("val", users["val"], 2),
        "data/test-00000-of-00001.parquet": shard("test", users["test"], 3),
        "label_relationship.txt": b"cat -> animal\ntree -> plant\n",
        "ATTRIBUTION.txt": b"nobody\n",
        ".gitattributes": b"*.parquet filter=lfs\n",
    }


@pytest.fixture
def hub(repository: dict[str, bytes]) -> Iterator[Hub]:
    made = Hub(dict(repository))
    with serving(made.files):
        yield made
