"""What reaches the terminal is what can be seen."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.system.terminal import cell, encodable, one_line, printable, say

# Surrogates too: names of files and labels in JSON have them.
TEXTS = st.text(st.characters(codec=None, categories=None), max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("b\x1b[2Jb", r"b\x1b[2Jb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("a\x9b2Jb", r"a\x9b2Jb"),
        ("a\rb", r"a\rb"),
        ("\x07\x00\x7f", r"\x07\x00\x7f"),
        ("two\nlines\tand ± 木", "two\nlines\tand ± 木"),
    ],
)
def test_what_would_steer_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(TEXTS)
def test_everything_shown_is_visible_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert printable(shown) == shown
    assert cell(text).isprintable()
    assert one_line(text).isprintable()
    assert "  " not in one_line(text)
    assert encodable(shown, "ascii").isascii()


def test_a_cell_has_one_line_and_an_error_no_line_ends() -> None:
    assert cell("a\nb\tc") == r"a\nb\tc"
    assert one_line(" a\n\n b\tc\x1b") == r"a b c\x1b"


def test_a_line_is_said_on_a_stream_that_cannot_take_all_of_it() -> None:
    program = "from fedflair.system.terminal import say; say('± \\x1b[2J \\ud800'); say('é', stderr=True)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert done.stdout == b"\\xb1 \\x1b[2J \\ud800\n"
    assert done.stderr == b"\\xe9\n"


def test_a_stream_without_an_encoding_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    say("±\x1b")
    assert stream.getvalue() == "±\\x1b\n"
