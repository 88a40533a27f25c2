"""From a signature to a parsed call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from fedflair.commands.arguments import call
from fedflair.errors import UsageError

Kind = Literal["round", "long"]
calls: list[tuple[Any, ...]] = []


def bake(loaf: Path, *, kind: Kind = "round", minutes: int, from_: str | None = None, dry: bool = False) -> None:
    """Bake a loaf.

    Args:
        loaf: Where the dough is.
        kind: Its form.
        minutes: How long.
        from_: Whose recipe.
        dry: Heat nothing.
    """
    calls.append((loaf, kind, minutes, from_, dry))


def pile(*loaves: Path, high: bool = False) -> None:
    """Pile loaves."""
    calls.append((loaves, high))


def test_words_are_typed_by_the_signature() -> None:
    calls.clear()
    call(bake, "bake", ["dough", "--minutes", "40", "--from", "aunt", "--dry"])
    call(bake, "bake", ["dough", "--minutes", "40", "--kind", "long"])
    call(pile, "pile", ["a", "b"])
    call(pile, "pile", ["--high", "a"])
    call(pile, "pile", ["--high"])
    assert calls == [
        (Path("dough"), "round", 40, "aunt", True),
        (Path("dough"), "long", 40, None, False),
        ((Path("a"), Path("b")), False),
        ((Path("a"),), True),
        ((), True),
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--minutes", "40"], "loaf"),
        (["dough"], "minutes"),
        (["dough", "--minutes", "long"], "minutes: long is impossible; it must be a whole number"),
        (["dough", "--minutes", "40", "--kind", "flat"], "kind: flat is impossible; it must be round or long"),
        (["dough", "--minutes", "40", "--hot"], "hot: unknown option; see fedflair bake --help"),
    ],
)
def test_words_that_do_not_fit_are_a_usage_error_that_names_them(words: list[str], named: str) -> None:
    calls.clear()
    with pytest.raises(UsageError, match=named):
        call(bake, "bake", words)
    assert calls == []


def test_the_docstring_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(bake, "bake", ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: fedflair bake" in shown
    assert all(text in shown for text in ("Bake a loaf.", "Where the dough is.", "--from", "Whose recipe."))


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    calls.clear()
    call(bake, "bake", ["~/dough", "--minutes", "40", "--from", "aunt~"])
    call(pile, "pile", ["~/a", "b~"])
    assert calls == [
        (Path("/home/ada/dough"), "round", 40, "aunt~", False),
        ((Path("/home/ada/a"), Path("b~")), False),
    ]
