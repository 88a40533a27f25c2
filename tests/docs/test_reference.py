"""The page of the Python API has every public name, and none without words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from docs.generate import reference

import fedflair


def names() -> list[str]:
    return [name for section in reference.sections() for name in section.names]


def test_every_name_is_there_once_with_words_of_its_own() -> None:
    assert len(names()) == len({reference.resolved(name) for name in names()})
    assert {f"fedflair.{name}" for name in getattr(fedflair, "__all__", ()) if not name.startswith("__")} <= set(
        names()
    )
    assert reference.undocumented(tuple(names())) == []


def test_a_new_name_of_the_package_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedflair, "__all__", ["__version__", "store"], raising=False)
    monkeypatch.setattr(fedflair, "store", reference.found("fedflair.data.open"), raising=False)
    first, second, *_ = reference.sections()
    assert (first.title, first.names) == ("fedflair", ("fedflair.store",))
    assert "fedflair.data.open" not in second.names
    assert reference.page().count("\n::: fedflair.data.open\n") == 1


def test_what_has_no_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Silent:
        number: int = 0

        def method(self) -> int:
            return self.number

    monkeypatch.setattr(fedflair, "__all__", ["Silent"], raising=False)
    monkeypatch.setattr(fedflair, "Silent", Silent, raising=False)
    assert reference.undocumented(("fedflair.Silent",)) == ["fedflair.Silent", "fedflair.Silent.method"]
    with pytest.raises(ValueError, match=r"without a docstring: fedflair\.Silent, fedflair\.Silent\.method"):
        reference.page()


def test_a_name_that_is_gone_is_told() -> None:
    with pytest.raises(LookupError, match=r"fedflair\.data\.gone: named on the page"):
        reference.found("fedflair.data.gone")
