"""Every command's parser, for what shows or completes them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from jsonargparse import ArgumentParser

from fedflair.commands.arguments import parser_of


def parser_of_command(name: str) -> ArgumentParser:
    """The parser that ``fedflair NAME`` reads its words with: the module's own, or that of its function's signature."""
    module = importlib.import_module(f"fedflair.commands.{name}")
    own: Callable[[], ArgumentParser] | None = getattr(module, "parser", None)
    return parser_of(getattr(module, name), name) if own is None else own()
