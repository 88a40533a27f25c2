"""The one way to the terminal is the only one, and whatever text is given to it is shown as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fedflair
from fedflair.commands.progress import transfer_bars
from fedflair.system.console import Console, table

PACKAGE = Path(fedflair.__file__).parent
ONE_WAY = ("system/console.py", "system/terminal.py")
HOSTILE = "[/x]\x1b[2J[bold]b :smile:"
SHOWN = r"[/x]\x1b[2J[bold]b :smile:"


def other_ways(source: str) -> list[str]:
    """What in a file's text prints past ``system``: ``print``, writing to a standard stream, a console of rich.

    So does a warning, which is Python's way to tell Python users, unless its text is made one plain line first.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] == "rich"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
            # Bars are given a console, and draw through it.
            found += [node.module or ""] if node.module != "rich.progress" else []
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "warnings.warn" and "one_line(" in ast.unparse(node.args[0]):
                continue
            if called in ("print", "sys.stdout.write", "sys.stderr.write", "warnings.warn"):
                found.append(called)
    return found


def test_nothing_prints_but_the_one_way() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert len(files) > 150
    assert {name: ways for name, text in files.items() if name not in ONE_WAY and (ways := other_ways(text))} == {}


@pytest.mark.parametrize(
    "way",
    ["from rich.console import Console", "import rich.table", "from rich import print", "print(name)",
     "sys.stderr.write(name)", "warnings.warn(name)", "def f():\n    from rich.text import Text"],
)  # fmt: skip
def test_another_way_would_be_found(way: str) -> None:
    assert other_ways(way)


def test_a_table_shows_titles_headings_and_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print(table(HOSTILE, ("name", HOSTILE), [(HOSTILE + "\nsecond", "1"), ("[red]", HOSTILE)]))
    shown = capsys.readouterr().out
    assert shown.count("[/x]") == 4
    assert r"\nsecond" in shown
    assert "[red]" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_line_is_whole_and_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(stderr=True).say(f"{HOSTILE} {'long ' * 100}")
    assert capsys.readouterr().err == f"{SHOWN} {'long ' * 100}\n"


def test_text_printed_by_itself_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.print(HOSTILE, markup=True, emoji=True)
    console.print([HOSTILE], {"a": "\x1b[2J"})
    console.rule(HOSTILE)
    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert shown.startswith(SHOWN)


def test_numbers_stay_whole_where_words_and_headings_wrap(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    Console().print(table("t", ("point", "macro AP on test", "runs"), [("rate=1 " * 30, "0.600 ± 0.141", "12/12")]))
    shown = capsys.readouterr().out
    assert "0.600 ± 0.141" in shown
    assert "12/12" in shown
    assert shown.count("rate=1") == 30


def test_the_name_of_a_file_under_way_is_shown_as_it_is() -> None:
    with transfer_bars(Console()) as bars:
        bars.add(HOSTILE, 10)
    assert bars.progress.tasks[-1].description == SHOWN
