"""Pages: what a browser may run of them, what text can do in them, and the colours that their styles name."""

import base64
import hashlib
import re

import pytest

from fedflair.data.describe import page as describe
from fedflair.evaluation import gallery
from fedflair.report import style as report
from fedflair.system import html_page

NOTHING_RUNS = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def policy(page: str) -> str:
    (content,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return str(content)


def test_only_the_page_s_own_script_may_run() -> None:
    assert policy(html_page.whole("t", "", "")) == NOTHING_RUNS
    page = html_page.whole("t", "", "<p>b</p>", script='\n"a" < "b";\n')
    (ran,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(ran.encode()).digest()).decode()
    assert policy(page) == f"{NOTHING_RUNS}; script-src 'sha256-{digest}'"


def test_a_title_is_no_markup() -> None:
    assert "<title>&lt;/title&gt;&lt;b&gt;\\u202e</title>" in html_page.whole("</title><b>\u202e", "", "")


@pytest.mark.parametrize(
    "page",
    [
        report.whole("t", ""),
        gallery.page("t", {}, [], []),
        describe.html_page.whole("t", describe._STYLE, "", colours=describe._COLOURS),
    ],
    ids=["report", "gallery", "describe"],
)
def test_every_colour_has_a_light_and_a_dark_form(page: str) -> None:
    light, dark, paper = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", found))
        for found in re.findall(r":root \{(.*?)\}", page[: page.index("</style>")])
    )
    assert set(re.findall(r"var\(--([a-z]+)\)", page)) <= set(light)
    assert set(light) == set(dark)
    assert not set(light.items()) & set(dark.items())
    assert set(paper) <= set(light)
