"""How a server is borne with: what may pass by itself, how long that is waited for, and what is said in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import TypeVar

from fedflair.errors import DataError, Interrupted
from fedflair.system.terminal import one_line

T = TypeVar("T")

GO_ON = "run the same command again to go on from here"
_WAYS_OUT = (
    "check the network and HTTPS_PROXY, name a mirror with --endpoint (of the hub) or --base_url (of Apple's release), "
    "or draw a dataset without a network: fedflair synthesize; the same command goes on from here"
)
_PROXY_LOGIN = "the proxy wants a login: set HTTPS_PROXY (or HTTP_PROXY) to http://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    attempts: tries in a row that bring nothing new before giving up.
    first_wait, longest_wait: seconds between tries; doubled each time, at most ``longest_wait``.
    timeout: seconds without a byte after which a connection counts as dead.
    min_rate: bytes a second, over ``window`` seconds of waiting, below which it counts as dead too; 0 for none.
    tell: called with a line for people before each wait. ways_out: what to do where nobody can be reached.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 30.0
    timeout: float = 30.0
    min_rate: float = 1000.0
    window: float = 60.0
    tell: Callable[[str], None] = lambda line: None
    ways_out: str = _WAYS_OUT


class TryAgain(Exception):
    """A failure that may pass by itself.

    wait: seconds that the server asked for. remedy: what helps if it stays. attempts: after which it will stay.
    """

    def __init__(
        self, reason: str, wait: float | None = None, remedy: str = GO_ON, attempts: int | None = None
    ) -> None:
        super().__init__(one_line(reason)[:200])
        self.wait = wait
        self.remedy = remedy
        self.attempts = attempts


class Refused(Exception):
    """The server's no: a status that another try will not change. reason: its words, made printable."""

    def __init__(self, status: int, reason: str, headers: Message) -> None:
        self.status, self.reason, self.headers = status, one_line(reason)[:100], headers
        super().__init__(f"{status} {self.reason}")


def persist(
    call: Callable[[], T], url: str, patience: Patience, stop: threading.Event, progress: Callable[[], int]
) -> T:
    """Calls until it works, waiting longer each time; the count starts anew whenever ``progress()`` passes its highest.

    Progress slower than ``patience.min_rate`` counts as none. Raises DataError where the server refuses for good or
    the patience is at an end, Interrupted where stopped.
    """
    failures, highest = 0, progress()
    mark, since = highest, time.monotonic()
    while True:
        try:
            return call()
        except Refused as error:
            raise DataError(f"{one_line(url)}: the server answered {error}; {_remedy(error.status)}") from error
        except TryAgain as again:
            there, elapsed = progress(), time.monotonic() - since
            # The highest, not the last: a file that is begun anew again and again also grows.
            is_new = there > highest
            if there - mark >= patience.min_rate * elapsed:
                mark, since = there, time.monotonic()
            elif elapsed > patience.window:
                is_new = False
            failures = 1 if is_new else failures + 1
            highest = max(highest, there)
            if failures >= min(patience.attempts, again.attempts or patience.attempts):
                raise DataError(
                    f"{one_line(url)}: given up after {failures} tries that brought nothing new ({again}); "
                    f"{again.remedy}"
                ) from again
            wait = min(patience.first_wait * 2 ** (failures - 1), patience.longest_wait)
            wait = max(wait, min(again.wait or 0.0, 4 * patience.longest_wait))
            patience.tell(f"{one_line(url)}: {again}; trying again in {wait:.0f} s")
            if stop.wait(wait):
                raise Interrupted(f"download: stopped; {GO_ON}") from again


def _remedy(status: int) -> str:
    if status in (401, 403):
        return (
            "access is refused: check the address, or log in with 'hf auth login' where it is a private mirror, "
            "which gets the login with --send_token only"
        )
    if status in (404, 410):
        return "it is not there: check --base_url, --endpoint and --revision"
    if status == 407:
        return _PROXY_LOGIN
    if status == 511:
        return "the network wants a login: open any page in a browser, log in there, and run again"
    return "try again later"


def proxy_refusal(status: int) -> str:
    """What to do where a proxy does not make a tunnel."""
    return _PROXY_LOGIN if status == 407 else "the proxy refuses this address: ask its owner, or check HTTPS_PROXY"
