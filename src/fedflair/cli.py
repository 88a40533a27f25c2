"""The command line: command NAME is the function NAME in ``fedflair.commands.NAME``, imported when it is called."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from fedflair import __version__
from fedflair.commands import COMMANDS
from fedflair.errors import ConfigError, DataError, FedflairError, Interrupted, UsageError
from fedflair.system import memory
from fedflair.system.files import errno_of, why
from fedflair.system.processes import signal_of, signals_as_errors
from fedflair.system.terminal import one_line, say
from fedflair.system.threads import are_stuck, deaths_as_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0 well, 1 an error, 2 wrong usage (options that are unknown, impossible or without effect); 128 and the number of
    the signal where one ended it: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        say(f"fedflair {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        error = UsageError(f"unknown command {arguments[0]!r}; one of: {', '.join(COMMANDS)}")
        return _fail(error, str(error), 2)
    return guarded(lambda: run(arguments))


def run(arguments: Sequence[str]) -> None:
    """Runs one command, letting its errors pass. Raises FedflairError.

    A function whose one parameter is named ``arguments`` gets the words themselves, which it parses.
    """
    name, words = arguments[0], list(arguments[1:])
    function: Callable[..., object] = getattr(importlib.import_module(f"fedflair.commands.{name}"), name)
    if list(inspect.signature(function).parameters) == ["arguments"]:
        function(words)
    else:
        # Here, so that fedflair --help loads no parser.
        from fedflair.commands.arguments import call

        call(function, name, words)


def guarded(action: Callable[[], object]) -> int:
    """The exit status of ``action``: whatever ends it becomes one line on stderr; ``FEDFLAIR_DEBUG=1`` shows more."""
    try:
        with signals_as_errors(), deaths_as_errors():
            action()
            # Here, where a full disk behind it can still be told.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone.
        _close_output()
    except Interrupted as error:
        return _fail(error, str(error), 128 + signal_of(error))
    except KeyboardInterrupt as error:
        return _fail(error, str(error) or "stopped", 128 + signal_of(error))
    except Exception as error:  # noqa: BLE001 - the last one who can say it in a line
        status = _fail(error, *_told(error))
        if memory.shortage(error) is not None and are_stuck():
            os._exit(status)
        return status
    return 0


def _told(error: Exception) -> tuple[str, int]:
    """(what to say of an error, exit status)."""
    short = memory.shortage(error)
    # A file that could not be read for want of memory is not damaged.
    if short is not None and (isinstance(error, (ConfigError, DataError)) or not isinstance(error, FedflairError)):
        return memory.words_of(short), 1
    if isinstance(error, FedflairError):
        return str(error), 2 if isinstance(error, UsageError) else 1
    if errno_of(error) is not None:
        file = getattr(error, "filename", None)
        if file is None:
            # It may be what is still to be written there.
            _close_output()
        return f"{file or 'output'}: {why(error)}", 1
    what = f"{type(error).__name__}: {error}"
    return f"internal error: {what}; set FEDFLAIR_DEBUG=1 to see where, and report it", 1


def _close_output() -> None:
    """Hands the interpreter a sink for what is still to be written to stdout, so that it can end quietly."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage() -> str:
    lines = [f"  {name:<12}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fedflair COMMAND [...]",
            "",
            "The FLAIR federated-learning benchmark: data, simulation, privacy, evaluation, report.",
            "",
            *lines,
            "",
            "'fedflair COMMAND --help' explains a command.",
        ]
    )


def _fail(error: BaseException, message: str, status: int) -> int:
    if os.environ.get("FEDFLAIR_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    with suppress(OSError):
        say(f"fedflair: {one_line(message)}", stderr=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
