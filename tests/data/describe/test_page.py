"""The page of ``fedflair describe``: complete by itself, bounded, and no text of a dataset becomes markup."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedflair.data.describe import gallery
from fedflair.data.describe.page import write_page
from fedflair.data.describe.plots import PLOTS, _widening, plain_text
from fedflair.data.describe.statistics import join, store_statistics
from fedflair.data.published import licence_of
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
from tests.data.describe.test_statistics import SMALL, Images, write_store

HOSTILE = "<script>document.title='owned'</script>"
HOSTILE_LABELS = ("</script><img src=x onerror=\"document.title='owned'\">", "$\\frac{1}$ & <b>", "木\x1b[2J")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the page's data element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._element = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._element = dict(attributes).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._element] = self.texts.get(self._element, "") + data


def page_of(path: Path, output: Path) -> Path:
    store = open_store(path)
    return write_page(store, store_statistics(store), output)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    content: Images = {"train": {HOSTILE: SMALL["train"]["ann"], "bob": SMALL["train"]["bob"]}, "val": SMALL["val"]}
    return page_of(write_store(folder / "<i>s.hdf5", content, HOSTILE_LABELS, jpeg()), folder / "out")


def test_every_plot_is_written_and_embedded(hostile_page: Path) -> None:
    assert {path.stem for path in hostile_page.parent.glob("*.png")} == set(PLOTS)
    for name in PLOTS:
        with Image.open(hostile_page.parent / f"{name}.png") as image:
            assert image.width > 500
    assert hostile_page.read_text(encoding="utf-8").count('src="data:image/png;base64,') == len(PLOTS)


def test_titles_say_what_the_plots_show(tmp_path: Path) -> None:
    """Ten users of one image of animal, of whom one has nine more with food as well."""
    users = {f"u{i}": [([0], [])] + ([([0, 1], [])] * 9 if i == 0 else []) for i in range(10)}
    text = page_of(write_store(tmp_path / "s.hdf5", {"train": users}, jpeg=jpeg()), tmp_path / "out").read_text()
    for title in (
        "Images per user: the user with most images has 53% of them",
        "Label frequencies: animal is on 100%, food is on 47.4% of the images",
        "Labels per user: half of the users have at most 1 coarse and 0 fine ones",
        "Labels that occur together: of the images with food, 100% have animal too",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "<h2>How far users are from the population: half are 0." in text


def test_the_licence_of_the_photographs_is_said(hostile_page: Path) -> None:
    assert licence_of({}).replace("'", "&#x27;") in hostile_page.read_text(encoding="utf-8")


def test_text_of_the_dataset_is_escaped(hostile_page: Path) -> None:
    page = Elements(hostile_page.read_text(encoding="utf-8"))
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert not [tag for tag, _ in page.tags if tag == "i"]
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    data = json.loads(page.texts["data"])
    assert HOSTILE in [user[0] for user in data["users"]]
    assert HOSTILE_LABELS[0] in [label[0] for label in data["labels"]]


def test_nothing_is_loaded_from_elsewhere(hostile_page: Path) -> None:
    page = Elements(hostile_page.read_text(encoding="utf-8"))
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links
    assert all(link and link.startswith(("data:", "#")) for link in links)
    assert "url(" not in page.texts["style"]
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy and policy.startswith("default-src 'none'; img-src data:;")


def test_gallery_is_bounded_and_spread_over_sizes(tmp_path: Path) -> None:
    sizes = [1] * 300 + [2] * 100 + [30] * 20 + [500]
    users = {f"u{i:03}": [([i % 3], [i % 4])] * size for i, size in enumerate(sizes)}
    store = open_store(write_store(tmp_path / "s.hdf5", {"train": users}, jpeg=jpeg()))
    everything = join([store.partitions["train"].columns])
    data = gallery.gallery(store, everything, store_statistics(store)["all"])
    shown = [user[2] for user in data["users"]]
    assert len(shown) == gallery.USERS
    assert shown == sorted(shown, reverse=True)
    assert set(shown) == {1, 2, 30, 500}
    assert len({user[0] for user in data["users"]}) == len(shown)
    assert all(len(user[3]) == min(user[2], gallery.IMAGES_PER_USER) for user in data["users"])
    assert [label[:3] for label in data["labels"][:1]] == [["animal", "coarse", everything_with(users, 0)]]
    assert all(len(label[3]) == gallery.IMAGES_PER_LABEL for label in data["labels"])
    # Twelve images of a label come from twelve users where there are as many.
    owners = {data["images"][position][1] for position in data["labels"][0][3]}
    assert len(owners) == gallery.IMAGES_PER_LABEL
    assert len(data["images"]) <= 48 * 12 + 7 * 12


def everything_with(users: dict[str, list[tuple[list[int], list[int]]]], label: int) -> int:
    return sum(label in coarse for images in users.values() for coarse, _ in images)


def test_entries_point_at_their_own_images(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.hdf5", SMALL, jpeg=jpeg()))
    everything = join([partition.columns for partition in store.partitions.values()])
    data = gallery.gallery(store, everything, store_statistics(store)["all"])
    assert sorted(user[:3] for user in data["users"]) == [["ann", "train", 3], ["bob", "train", 1], ["cid", "val", 1]]
    for user_id, partition, _, positions in data["users"]:
        assert {tuple(data["images"][position][1:3]) for position in positions} == {(user_id, partition)}
    for name, kind, number, positions in data["labels"]:
        assert len(positions) == number
        assert all(name in data["images"][position][4 if kind == "coarse" else 5] for position in positions)


def test_spread_of_equal_users_is_without_repeats() -> None:
    chosen = gallery.spread_over_sizes(np.ones(1000, dtype=np.int64), 48)
    assert len(set(chosen.tolist())) == 48
    assert gallery.spread_over_sizes(np.array([1, 3, 2]), 48).tolist() == [1, 2, 0]


def test_what_cannot_be_decoded_has_no_thumbnail() -> None:
    assert gallery.thumbnail(b"\xff\xd8\xff\xd9") is None
    assert gallery.thumbnail(jpeg()[:200]) is None
    assert gallery.thumbnail(jpeg()) is not None


@pytest.mark.parametrize("most", [1, 41, 838, 1628])
def test_bins_cover_all_numbers_and_never_narrow(most: int) -> None:
    edges = _widening(most)
    widths = np.diff(edges)
    assert edges[0] == 1 and edges[-1] > most >= edges[-2]
    assert (np.diff(widths) >= 0).all() and widths.min() == 1
    assert len(widths) < 40


def test_labels_in_plots_start_no_formula() -> None:
    assert plain_text("$x$") == r"\$x\$"
    assert plain_text("a" * 30) == "a" * 23 + "…"


def test_a_store_with_an_empty_partition_has_a_page(tmp_path: Path) -> None:
    content: Images = {"train": SMALL["train"], "test": {}}
    page_of(write_store(tmp_path / "s.hdf5", content), tmp_path / "out")
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_store_without_images_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.hdf5: holds no image"):
        page_of(write_store(tmp_path / "s.hdf5", {"train": {}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the page's script is not run")
@pytest.mark.parametrize(("fragment", "tiles"), [("", 3), ("#labels-0", 3), ("#users-1", 1)])
def test_in_a_browser(hostile_page: Path, tmp_path: Path, fragment: str, tiles: int) -> None:
    assert CHROMIUM
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --dump-dom"
    command = [CHROMIUM, *options.split(), hostile_page.as_uri() + fragment]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    page = Elements(dom)
    assert page.texts["title"].strip() == "<i>s.hdf5"
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert len(re.findall(r'<img src="data:image/jpeg', dom)) == tiles
    if not fragment:
        assert page.texts["heading"] == HOSTILE
