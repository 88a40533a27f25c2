"""Who gets the hub's token."""

from __future__ import annotations

import pytest

from fedflair.data.download.login import Login
from fedflair.errors import ConfigError

SECRET = {"Authorization": "Bearer hf_secret"}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)


@pytest.mark.parametrize("hub", ["https://huggingface.co", "https://huggingface.co/", "https://HuggingFace.co:443/x"])
def test_the_hub_itself_gets_it(hub: str) -> None:
    assert Login(hub, opted_in=False).headers(hub + "/api/datasets/apple/flair") == SECRET


@pytest.mark.parametrize(
    "mirror",
    ["http://huggingface.co", "https://huggingface.co:444", "https://huggingface.co.mirror.invalid",
     "https://mirror.invalid", "https://mirror.invalid/huggingface.co", "http://127.0.0.1:80"],
)  # fmt: skip
def test_nobody_else_gets_it_unasked(mirror: str) -> None:
    assert Login(mirror, opted_in=False).headers(mirror + "/x") == {}


@pytest.mark.parametrize(
    "mirror", ["https://mirror.invalid", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:9"]
)
def test_whom_the_user_names_gets_it(mirror: str) -> None:
    assert Login(mirror, opted_in=True).headers(mirror + "/x") == SECRET


@pytest.mark.parametrize(
    "mirror", ["http://mirror.invalid", "http://huggingface.co", "http://192.168.0.1", "http://127.evil.invalid"]
)
def test_never_over_what_anybody_can_read(mirror: str) -> None:
    with pytest.raises(ConfigError, match=r"send_token: .* is not https, so anybody on the way could read the token"):
        Login(mirror, opted_in=True)


@pytest.mark.parametrize("url", ["https://other.invalid/x", "http://mirror.invalid/x", "https://mirror.invalid:8443/x"])
def test_another_server_that_a_list_leads_to_does_not_get_it(url: str) -> None:
    assert Login("https://mirror.invalid", opted_in=True).headers(url) == {}


def test_no_token_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert Login("https://huggingface.co", opted_in=False).headers("https://huggingface.co/x") == {}
    with pytest.raises(ConfigError, match="send_token: there is no token; log in with 'hf auth login'"):
        Login("https://mirror.invalid", opted_in=True)


def test_a_user_who_keeps_the_token_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert Login("https://huggingface.co", opted_in=False).headers("https://huggingface.co/x") == {}
    assert Login("https://huggingface.co", opted_in=True).headers("https://huggingface.co/x") == SECRET


def test_a_token_that_is_none_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_se\x1bcret")
    with pytest.raises(ConfigError, match="HF_TOKEN: holds what no token holds") as raised:
        Login("https://huggingface.co", opted_in=False)
    assert "cret" not in str(raised.value)
