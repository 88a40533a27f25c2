"""The page of ``fedflair describe``: tables, plots and a gallery in one HTML file that loads nothing from elsewhere.

All text of the dataset reaches the page through ``html_page.text``, or as JSON that the script puts into text nodes;
no script runs but the page's own.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from fedflair.data.describe.comparison import (
    DISTRIBUTIONS,
    DIVERGENCES,
    MOMENTS,
    as_plain,
    distribution_rows,
    has_fine_labels,
    label_table,
    most_frequent,
    partition_table,
    published_beside,
)
from fedflair.data.describe.findings import findings
from fedflair.data.describe.gallery import gallery
from fedflair.data.describe.plots import PLOTS, draw_all
from fedflair.data.describe.statistics import Statistics, join
from fedflair.data.published import licence_of
from fedflair.data.store.packed import Store
from fedflair.errors import DataError
from fedflair.system import html_page
from fedflair.system.files import write_atomically
from fedflair.system.html_page import text

FINE_ROWS = 40


def write_page(store: Store, by_partition: dict[str, Statistics], output: Path) -> Path:
    """Writes the plots as PNG files and ``index.html`` into a folder and returns the page's path.

    by_partition: what :func:`fedflair.data.describe.statistics.store_statistics` returns for the store.
    Raises DataError where the store holds no image or the folder cannot be written to.
    """
    partitions = {name: partition.columns for name, partition in store.partitions.items()}
    everything = join(list(partitions.values()))
    if everything.num_images == 0:
        raise DataError(f"{store.path}: holds no image, so there is nothing to plot; leave out --output")
    plain = as_plain(by_partition)
    plots = draw_all(partitions, everything, by_partition["all"], beside=published_beside(plain))
    images = gallery(store, everything, by_partition["all"])
    titles = findings(everything, by_partition["all"])
    page = render(store.path.name, plain, plots, titles, images, licence_of(store.metadata.provenance))
    for name, png in plots.items():
        write_atomically(output / f"{name}.png", png)
    write_atomically(output / "index.html", page)
    return output / "index.html"


def render(
    title: str,
    plain: dict[str, Any],
    plots: dict[str, bytes],
    titles: dict[str, str],
    gallery: dict[str, Any],
    licence: str,
) -> str:
    """The whole page as text. titles: of the plots, by name. licence: what is to be said of the photographs."""
    # Escaped so that no text of the dataset can end the element that holds it.
    data = json.dumps(gallery, ensure_ascii=True, separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    body = "\n".join(
        [
            f"<header><h1>{text(title)}</h1>{_summary(plain)}",
            '<nav><a href="#tables">Tables</a><a href="#plots">Plots</a><a href="#gallery">Gallery</a></nav></header>',
            f'<main><section id="tables">{_tables(plain)}</section>',
            f'<section id="plots">{"".join(_figure(titles[name], name, plots[name]) for name in plots)}</section>',
            f'<section id="gallery">{_GALLERY.replace("$LICENCE", text(licence))}</section></main>',
            f'<script type="application/json" id="data">{data}</script>',
        ]
    )
    return html_page.whole(title, _STYLE, body, colours=_COLOURS, script=_SCRIPT)


def _summary(plain: dict[str, Any]) -> str:
    everything = plain["all"]
    facts = [
        (f"{everything['users']:,}", "users"),
        (f"{everything['images']:,}", "images"),
        (f"{everything['labels']['in_use']:,}", "coarse labels in use"),
        *(
            [(f"{everything['fine_grained_labels']['in_use']:,}", "fine labels in use")]
            if has_fine_labels(plain)
            else []
        ),
        (f"{everything['image_bytes'] / 1e6:,.1f}", "megabytes of images"),
    ]
    return f'<p class="facts">{"".join(f"<span><b>{value}</b> {what}</span>" for value, what in facts)}</p>'


def _tables(plain: dict[str, Any]) -> str:
    everything = plain["all"]
    coarse = most_frequent(everything, "labels", len(everything["labels"]["images_per_label"]))
    fine = most_frequent(everything, "fine_grained_labels", FINE_ROWS)
    return "".join(
        [
            '<div class="beside"><div><h2>Users and images</h2>',
            _table(*partition_table(plain)),
            "<h2>Distributions</h2><p>Labels per user are distinct ones.</p>",
            _table(["", *MOMENTS], distribution_rows(plain, DISTRIBUTIONS)),
            "<h2>Divergence of users from the population</h2><p>Jensen-Shannon, 0 to 1 bit.</p>",
            _table(["", *MOMENTS], distribution_rows(plain, DIVERGENCES)),
            "</div><div><h2>Images per coarse label</h2>",
            _table(*label_table(plain, "labels", coarse)),
            "</div></div>",
            *(
                [
                    f"<details><summary>Images per fine label: the {len(fine)} most frequent</summary>",
                    _table(*label_table(plain, "fine_grained_labels", fine)),
                    "</details>",
                ]
                if has_fine_labels(plain)
                else []
            ),
        ]
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=published' if row[0] == 'in FLAIR' else ''}><th>{text(row[0])}</th>"
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(title: str, name: str, png: bytes) -> str:
    kind, caption = PLOTS[name]
    source = base64.b64encode(png).decode()
    return (
        f"<figure><h2>{text(title)}</h2><figcaption>{text(caption)}</figcaption>"
        f'<div class="plot"><img alt="{text(kind)}" src="data:image/png;base64,{source}"></div></figure>'
    )


_COLOURS = {"accent": ("#2a6fb0", "#3f86c9"), "chosen": ("#e1edf8", "#1f3d5a")}

_STYLE = """
body { margin: 0; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 18px; margin: 32px 0 6px; }
p, figcaption { color: var(--faint); margin: 0 0 8px; }
.facts span { display: inline-block; margin-right: 24px; white-space: nowrap; }
.facts b { color: var(--ink); font-size: 18px; }
nav { border-bottom: 1px solid var(--line); padding-bottom: 10px; }
nav a { color: var(--accent); margin-right: 20px; text-decoration: none; }
.beside { display: flex; flex-wrap: wrap; gap: 0 60px; }
.beside > div { min-width: 0; max-width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 3px 14px 3px 0; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; max-width: 320px; overflow: hidden; text-overflow: ellipsis; }
thead th { color: var(--faint); font-weight: 500; border-bottom: 1px solid var(--line); }
tr.published th { padding-left: 16px; }
tr.published { color: var(--faint); }
summary { margin: 24px 0 8px; cursor: pointer; font-size: 18px; font-weight: bold; }
figure { margin: 0; break-inside: avoid; }
.plot { overflow-x: auto; }
/* Black on white becomes the page's own ink on its paper, and hues stay what they are. */
@media screen and (prefers-color-scheme: dark) { .plot img { filter: invert(.914) hue-rotate(180deg); } }
figure img { max-width: 100%; height: auto; }
.browser { display: grid; grid-template-columns: 310px 1fr; gap: 24px; min-height: 420px; margin-bottom: 60px; }
.kinds button { font: inherit; padding: 5px 14px; border: 1px solid var(--line); color: var(--ink);
  background: var(--paper); cursor: pointer; }
.kinds button[aria-pressed=true] { background: var(--accent); border-color: var(--accent);
  color: var(--paper); }
#filter { width: 100%; font: inherit; padding: 5px 8px; margin: 10px 0; border: 1px solid #9aa5b1; border-radius: 4px;
  color: var(--ink); background: var(--paper); }
#list { max-height: 620px; overflow-y: auto; border-top: 1px solid var(--line); }
#list button { display: flex; width: 100%; gap: 10px; border: 0; border-bottom: 1px solid var(--line); padding: 6px;
  background: none; color: var(--ink); font: inherit; font-size: 14px; text-align: left; cursor: pointer; }
#list button:hover { background: var(--box); }
#list button[aria-current=true] { background: var(--chosen); }
#list .name { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
#list .more { color: var(--faint); font-size: 13px; }
#shown h3 { margin: 4px 0; overflow-wrap: anywhere; }
#tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 18px 14px; }
#tiles img, #tiles .broken { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 4px;
  background: var(--box); }
#tiles .broken { display: grid; place-items: center; color: var(--faint); font-size: 13px; }
#tiles .labels { font-size: 12px; line-height: 1.35; color: var(--faint); overflow-wrap: anywhere; }
#tiles .labels b { color: var(--ink); font-weight: 500; display: block; }
@media screen and (max-width: 700px) {
  .browser { grid-template-columns: minmax(0, 1fr); } #list { max-height: 240px; }
  th, td { padding-right: 8px; } .plot img { width: 620px; max-width: none; }
}
@media print {
  nav, .browser > :first-child { display: none; } .browser { display: block; } tr { break-inside: avoid; }
  #tiles { grid-template-columns: repeat(6, 1fr); }
}
"""

_GALLERY = """
<h2>Gallery</h2><p id="sampled"></p><p>$LICENCE</p>
<noscript><p>The gallery needs JavaScript; nothing is loaded from elsewhere.</p></noscript>
<div class="browser"><div>
<div class="kinds"><button id="by-users">By user</button><button id="by-labels">By label</button></div>
<input id="filter" type="search" placeholder="Filter" aria-label="Filter the list"><div id="list"></div></div>
<div id="shown"><h3 id="heading"></h3><p id="note"></p><div id="tiles"></div></div></div>
"""

# Nodes are made only for what is selected, and text only ever goes into textContent, title and alt.
_SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const number = value => value.toLocaleString("en");
const plural = (value, what) => number(value) + " " + what + (value === 1 ? "" : "s");
const state = { kind: "users", chosen: 0 };

function describeEntry(entry) {
  return state.kind === "users" ? entry[1] + ", " + plural(entry[2], "image") : entry[1] + ", " + number(entry[2]);
}

function tile(position) {
  const [source, user, partition, id, coarse, fine] = data.images[position];
  const node = make("div");
  if (source === null) node.append(make("div", "broken", "cannot be decoded"));
  else {
    const image = make("img");
    image.src = "data:image/jpeg;base64," + source;
    image.alt = coarse.join(", ");
    image.title = user + ", image " + id + " (" + partition + ")";
    node.append(image);
  }
  const labels = make("div", "labels");
  labels.append(make("b", "", coarse.join(", ")), fine.join(", "));
  if (state.kind === "labels") labels.append(make("div", "", user));
  node.append(labels);
  return node;
}

function showEntry(position) {
  state.chosen = position;
  for (const button of at("list").children) button.setAttribute("aria-current", +button.dataset.position === position);
  const entry = data[state.kind][position];
  at("tiles").replaceChildren(...(entry ? entry[3].map(tile) : []));
  at("heading").textContent = entry ? entry[0] : "Nothing to show";
  const shown = entry ? entry[3].length : 0;
  at("note").textContent = entry
    ? describeEntry(entry) + (state.kind === "labels" ? " images" : "") +
      (shown < entry[2] ? "; " + number(shown) + " of them below" : "") : "";
}

function showList() {
  const wanted = at("filter").value.toLowerCase();
  const buttons = [];
  data[state.kind].forEach((entry, position) => {
    if (!entry[0].toLowerCase().includes(wanted)) return;
    const button = make("button");
    button.dataset.position = position;
    button.append(make("span", "name", entry[0]), make("span", "more", describeEntry(entry)));
    button.title = entry[0];
    button.onclick = () => { location.replace("#" + state.kind + "-" + position); };
    buttons.push(button);
  });
  at("list").replaceChildren(...buttons);
}

function choose(kind, position) {
  state.kind = kind;
  for (const other of ["users", "labels"]) at("by-" + other).setAttribute("aria-pressed", other === kind);
  showList();
  showEntry(position);
}

function follow() {
  const match = /^#(users|labels)-(\\d+)$/.exec(location.hash);
  if (match) choose(match[1], +match[2]);
}

for (const kind of ["users", "labels"]) {
  at("by-" + kind).onclick = () => { at("filter").value = ""; location.replace("#" + kind + "-0"); };
}
at("filter").oninput = () => { showList(); showEntry(state.chosen); };
addEventListener("hashchange", follow);
const fine = data.labels.filter(entry => entry[1] === "fine").length;
at("sampled").textContent = "A sample: " + number(data.users.length) + " of " + plural(data.num_users, "user") +
  ", small to large; " + number(data.labels.length - fine) + " of " + number(data.num_labels[0]) + " coarse and " +
  number(fine) + " of " + number(data.num_labels[1]) + " fine labels, the most frequent ones.";
choose("users", 0);
follow();
if (/^#(users|labels)-/.test(location.hash)) at("gallery").scrollIntoView();
"""
