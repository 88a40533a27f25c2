"""Photographs with what a model says of them, as one HTML file that loads nothing from elsewhere and runs no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from fedflair.data.images.photographs import Photograph
from fedflair.system import html_page
from fedflair.system.terminal import cell

# A page of a few megabytes whatever there is to show.
MOST_SHOWN = 500
_SIDE = 192  # pixels
_QUALITY = 80
# Of a panorama the picture stays high enough to be seen.
_ASPECTS = (1 / 3, 3.0)


@dataclass(frozen=True)
class Labelled:
    """labels: (name, probability, whether it is above the threshold), the most probable first."""

    name: str
    photograph: Photograph
    labels: Sequence[tuple[str, float, bool]]


def page(title: str, facts: Mapping[str, str], shown: Sequence[Labelled], notes: Sequence[str]) -> str:
    """The whole page. facts: what stands above it, by name. notes: sentences below them."""
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    sentences = "".join(f"<p>{_text(note)}</p>" for note in notes)
    figures = "\n".join(map(_figure, shown))
    body = f"<h1>{_text(title)}</h1>\n<dl>{rows}</dl>{sentences}<main>{figures}</main>"
    return html_page.whole(title, _STYLE, body, colours=_COLOURS)


def _figure(one: Labelled) -> str:
    aspect = min(max(one.photograph.aspect, _ASPECTS[0]), _ASPECTS[1])
    picture = (
        f'<img alt="" style="aspect-ratio:{aspect:.4f}" src="data:image/jpeg;base64,{_thumbnail(one.photograph)}">'
    )
    bars = "".join(
        f'<li class="{"yes" if is_predicted else "no"}"><i style="width:{100 * probability:.1f}%"></i>'
        f"<b>{_text(label)}</b> <span>{probability:.3f}</span></li>"
        for label, probability, is_predicted in one.labels
    )
    return f"<figure>{picture}<figcaption>{_text(one.name)}</figcaption><ul>{bars}</ul></figure>"


def _thumbnail(photograph: Photograph) -> str:
    """A small JPEG as base64, square: the page gives it its own proportions again."""
    with Image.open(io.BytesIO(photograph.encoded.tobytes())) as image:
        small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _text(text: str) -> str:
    """Somebody's text in one line, as it is shown in an element."""
    return html_page.text(cell(text))


_COLOURS = {"bar": ("#cfe3f7", "#1f4468"), "no": ("#ececec", "#2b2b2b")}

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 .6rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
p { color: var(--faint); margin: .2rem 0; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1.6rem 1.2rem;
  margin-top: 1.4rem; align-items: start; }
figure { margin: 0; break-inside: avoid; }
img { width: 100%; object-fit: fill; border-radius: .3rem; display: block; }
figcaption { font-size: .85rem; color: var(--faint); overflow-wrap: anywhere; margin: .3rem 0; }
ul { list-style: none; margin: 0; padding: 0; }
li { position: relative; display: flex; justify-content: space-between; gap: .6rem;
  padding: .1rem .4rem; margin-top: 2px; }
li i { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: .2rem; }
li.no i { background: var(--no); } li.no { color: var(--faint); }
li b, li span { position: relative; } li b { font-weight: 600; overflow-wrap: anywhere; } li.no b { font-weight: 400; }
li span { font-variant-numeric: tabular-nums; }
"""
