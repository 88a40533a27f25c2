"""What mkdocs calls while it builds the site: pages that the program itself writes, and a look at what was built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docs.generate import commands, configurations, reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fedflair.commands import COMMANDS

ROOT = Path(__file__).parents[2]
# Pages that stand at the root, where a repository's host shows them, under their names on the site.
AT_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
# A comment in a page, which is nothing where the page is read as it is, and this on the site.
MADE = {
    "<!-- made here: configurations -->": lambda: configurations.listing(configurations.shipped()),
    "<!-- made here: sweeps -->": lambda: configurations.listing(configurations.sweeps()),
}
# What a browser fetches by itself; links that a reader follows are none of it.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preconnect|preload))[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:@import\s+|url\()["']?(?:https?:)?//[^"')\s]+""",
    re.IGNORECASE,
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Completes the navigation: each command under the page of all of them, and at the end pages without a place."""
    nav = config.nav or []
    placed = re.findall(r"[\w/]+\.md", str(nav))
    others = [path.name for path in sorted(Path(config.docs_dir).glob("*.md")) if path.name not in placed]
    config.nav = _with_commands(nav) + ([{"More": others}] if others else [])
    return config


def _with_commands(nav: list[Any]) -> list[Any]:
    items: list[Any] = []
    for item in nav:
        if item == "options.md":
            items.append({"Options": [item, *({f"fedflair {name}": f"commands/{name}.md"} for name in COMMANDS)]})
        elif isinstance(item, dict):
            # A page alone has a title too, and nothing below it.
            items.append({t: _with_commands(below) if isinstance(below, list) else below for t, below in item.items()})
        else:
            items.append(item)
    return items


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that stand elsewhere, and those that are made."""
    made = {f"commands/{name}.md": commands.page(name) for name in COMMANDS}
    made["api.md"] = reference.page()
    made |= {name: (ROOT / source).read_text() for source, name in AT_ROOT.items()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "LICENSE", abs_src_path=str(ROOT / "LICENSE")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page's text, with what is made in the place of comments that ask for it, and links as on the site.

    The page of all options leads to those of the commands instead.
    """
    if page.file.src_uri == "options.md":
        return f"{markdown.partition('## ')[0]}\n\n{commands.overview()}\n"
    for comment, make in MADE.items():
        if comment in markdown:
            markdown = markdown.replace(comment, make())
    return _relinked(markdown)


def _relinked(markdown: str) -> str:
    def place(match: re.Match[str]) -> str:
        target = match[1].removeprefix("../").removeprefix("docs/")
        return f"]({AT_ROOT.get(target, target)}{match[2] or ''})"

    return re.sub(r"\]\(((?:\.\./|docs/)?[\w./-]+)(#[^)\s]*)?\)", place, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Raises PluginError where a page would fetch anything from another host."""
    site = Path(config.site_dir)
    found = [
        f"{path.relative_to(site)}: {match[0][:120]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".css")
        for match in FETCHED.finditer(path.read_text())
    ]
    if found:
        raise PluginError(f"pages fetch from other hosts: {'; '.join(found[:5])}")
