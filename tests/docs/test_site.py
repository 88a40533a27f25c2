"""The site is built, strictly, and fetches nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="in the extra fedflair[docs]")

from docs.generate.fields import listed
from docs.generate.hook import FETCHED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(built)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return built


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    assert {"index.html", "api.html", "changelog.html", "commands/train.html"} <= pages


def test_what_is_made_stands_in_its_place(site: Path) -> None:
    assert 'id="cohort_size"' in (site / "commands" / "train.html").read_text()
    assert "coarse_pretrained_private_own_users" in (site / "configurations.html").read_text()
    assert "fedflair.data.clients.dataset.Dataset.filter_users" in (site / "api.html").read_text()
    assert not [path.name for path in site.rglob("*.html") if "made here:" in path.read_text()]


def test_every_item_of_the_navigation_is_a_page_with_a_title(site: Path) -> None:
    text = (site / "privacy.html").read_text()
    links = re.findall(r'<a href="([^"#]+)" class="md-nav__link', text)
    assert len(links) > 30
    assert [link for link in links if not (site / link).is_file()] == []
    assert not re.search(r"^ *None *$", text, re.MULTILINE)


def test_an_address_that_a_page_would_fetch_is_seen() -> None:
    for text in (
        '<script src="https://a.example/x.js">',
        "<img alt='' src=//a.example/x.png>",
        '<link href="https://a.example/x.css" rel="stylesheet">',
        "@import 'https://a.example/x.css'",
        "src: url(https://a.example/x.woff2)",
    ):
        assert FETCHED.search(text), text
    for text in (
        '<a href="https://a.example">',
        '<img src="pictures/a.png">',
        '<link rel="canonical" href="https://a.example">',
    ):
        assert not FETCHED.search(text), text


def test_fields_of_a_docstring_are_items_of_a_list() -> None:
    words = "A run.\n\nepsilon: of all rounds; inf where nothing\n    is promised. More.\na, b: both\n\nRaises: nothing"
    items = [
        "**epsilon**: of all rounds; inf where nothing is promised. More.",
        "**a, b**: both",
        "**Raises**: nothing",
    ]
    assert listed(words).split() == " - ".join(["A run.", *items]).split()
    assert listed("Args:\n    a: words") == "Args:\n    a: words"
