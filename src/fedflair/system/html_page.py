"""Pages for people: one HTML file each, that loads nothing from elsewhere, light or dark as the reader likes."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping

from fedflair.system.terminal import printable

# (light, dark) each; on paper a page is light.
_COLOURS = {
    "ink": ("#1b1b1b", "#e4e4e4"),
    "paper": ("#fff", "#161616"),
    "faint": ("#5c5c5c", "#a8a8a8"),
    "line": ("#dcdcdc", "#3a3a3a"),
    "box": ("#f5f5f5", "#222"),
}
_ON_PAPER = {"ink": "#000", "faint": "#444", "line": "#bbb"}


def text(words: str) -> str:
    """Somebody's text as it is shown in an element or an attribute: nothing in it is markup, invisible, or impossible
    in a file."""
    return html.escape(printable(words))


def whole(
    title: str, style: str, body: str, *, colours: Mapping[str, tuple[str, str]] | None = None, script: str = ""
) -> str:
    """The page. title: plain text. body: markup, in which all text went through :func:`text`. style: CSS.

    colours: (light, dark) by name, for ``var(--name)``; ink, paper, faint, line and box are there without.
    script: the only one that runs; the browser is told so by its hash, and that none does where there is none.
    """
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    last = ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{digest}'"
        last = f"<script>{script}</script>\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{_palette({**_COLOURS, **(colours or {})})}
* {{ box-sizing: border-box; }}
body {{ color: var(--ink); background: var(--paper); }}
h1 {{ overflow-wrap: anywhere; }}
{style}</style>
</head>
<body>
{body}
{last}</body>
</html>
"""


def _palette(colours: Mapping[str, tuple[str, str]]) -> str:
    light = {name: light for name, (light, _) in colours.items()}
    dark = {name: dark for name, (_, dark) in colours.items()}
    return "\n".join(
        [
            f":root {{ {_variables(light)} }}",
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(dark)} }} }}",
            f"@media print {{ :root {{ {_variables(_ON_PAPER)} }} }}",
        ]
    )


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
