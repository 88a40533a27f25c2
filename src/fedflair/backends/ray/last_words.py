"""What a process has said for it when it ends without a chance to speak."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fedflair.system.terminal import printable

# Reads until the process has written, or has ended and so closed its end.
_LISTENER = "import sys; sys.stdin.buffer.read() or print(sys.argv[1], file=sys.stderr)"


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """Prints ``text`` on standard error if this process ends within the block at once: by SIGKILL, or by ``_exit``.

    Ray ends the driver in the middle of a call where its node's own process (the raylet) is lost, so nothing inside
    the driver can be relied on to say so. An exception that leaves the block is said by whoever catches it.
    """
    command = [sys.executable, "-I", "-S", "-c", _LISTENER, printable(text)]
    # A session of its own: Ctrl-C is for the driver alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as listener:
        try:
            yield
        finally:
            with suppress(BrokenPipeError):
                listener.communicate(b"said")
