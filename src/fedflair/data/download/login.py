"""The hub's token, and who gets it: the hub itself over https, and a mirror for which the user says so."""

from __future__ import annotations

import ipaddress
import re

from fedflair.data.download.connection import origin
from fedflair.errors import ConfigError

_HUB = ("https", "huggingface.co", 443)


class Login:
    """What is sent along to an address to be let in.

    Raises ConfigError where the user wants it sent (``opted_in``) to where anybody could read it, or has none.
    """

    def __init__(self, endpoint: str, *, opted_in: bool) -> None:
        self._origin = origin(endpoint)
        self._opted_in = opted_in
        scheme, host, _ = self._origin
        if opted_in and scheme != "https" and not _is_this_machine(host):
            raise ConfigError(f"send_token: {endpoint} is not https, so anybody on the way could read the token")
        self._token = self._read() if opted_in or self._origin == _HUB else None
        if opted_in and self._token is None:
            raise ConfigError("send_token: there is no token; log in with 'hf auth login', or set HF_TOKEN")

    def headers(self, url: str) -> dict[str, str]:
        """For a request of ``url``: nothing, unless it is the very server that may have the token."""
        if self._token is None or origin(url) != self._origin:
            return {}
        return {"Authorization": f"Bearer {self._token}"}

    def _read(self) -> str | None:
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and not self._opted_in:
            return None
        token = get_token()
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ConfigError("HF_TOKEN: holds what no token holds; set it anew, or log in with 'hf auth login'")
        return token


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
