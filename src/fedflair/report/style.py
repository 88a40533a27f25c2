"""How the page looks: light or dark as the reader likes, at any width, and on paper."""

from __future__ import annotations

from fedflair.report.markup import name
from fedflair.system import html_page


def whole(title: str, content: str) -> str:
    """The page, which runs no script. content: markup."""
    return html_page.whole(title, _STYLE, f"<h1>{name(title)}</h1>\n{content}", colours=_COLOURS)


_COLOURS = {"good": ("#17795a", "#4cc39c"), "bad": ("#b3401a", "#f0875c")}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1.25rem; }
h1 { font-size: 1.55rem; line-height: 1.3; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; max-width: 62rem; overflow-wrap: anywhere; }
p.faint, li.faint { color: var(--faint); font-size: .9rem; }
ul { margin: .5rem 0; padding-left: 1.2rem; } li { max-width: 62rem; overflow-wrap: anywhere; margin: .2rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; max-width: 100%; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tr > :first-child { padding-left: 0; }
thead th { font-weight: 600; color: var(--faint); vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 13rem; overflow-wrap: anywhere; }
.w { text-align: left; } .n { text-align: right; } td.n { white-space: nowrap; }
td.w { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1.2rem; margin: .4rem 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.mark { display: inline-block; width: 1.1em; text-align: center; font-variant-emoji: text; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.3rem; list-style: none; padding: 0; margin: .3rem 0 .8rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.4rem; align-items: flex-start; }
figure { margin: 0; flex: 1 1 24rem; max-width: 34rem; break-inside: avoid; min-width: 0; }
figure svg { width: 100%; height: auto; } figure svg text { font-family: system-ui, sans-serif !important; }
figcaption { text-align: center; color: var(--faint); font-size: .9rem; overflow-wrap: anywhere; }
details { margin: .3rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
pre { background: var(--box); padding: .8rem 1rem; font-size: .82rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; margin: .4rem 0 1rem; }
.photo { break-inside: avoid; font-size: .85rem; line-height: 1.35; }
.photo img, .photo .gone { width: 100%; aspect-ratio: 1; border-radius: .3rem; display: block; background: var(--box); }
.photo .gone { display: grid; place-items: center; color: var(--faint); padding: .5rem; text-align: center; }
.photo b { display: block; margin-top: .3rem; overflow-wrap: anywhere; }
.photo .right { color: var(--good); } .photo .wrong, .photo .missed { color: var(--bad); }
.photo span { color: var(--faint); display: block; overflow-wrap: anywhere; }
table.blocks thead { display: none; }
table.blocks, table.blocks tbody, table.blocks tr, table.blocks th, table.blocks td { display: block; }
table.blocks tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
table.blocks th, table.blocks td { border: 0; padding: .05rem 0; text-align: left; overflow-wrap: anywhere; }
table.blocks td { display: inline-block; margin-right: 1.2rem; }
table.blocks td::before { content: attr(data-of) ": "; color: var(--faint); }
@media screen and (max-width: 760px) {
  body { margin: 1rem auto; padding: 0 1rem; } h1 { font-size: 1.3rem; }
  thead { display: none; }
  table, tbody, tr, th, td { display: block; }
  tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  tbody th, td { border: 0; padding: .05rem 0; overflow-wrap: anywhere; min-width: 0; }
  td.n, td.w { display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  td::before { content: attr(data-of); color: var(--faint); text-align: left; flex: 0 0 auto; max-width: 65%; }
  table.blocks td::before { content: attr(data-of); }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { margin: 0; padding: 0; max-width: none; font-size: 10pt; print-color-adjust: exact; }
  h2, h3 { break-after: avoid; } tr, figure, .photo { break-inside: avoid; }
  .figures { gap: 1rem; } figure { flex: 0 1 calc(33% - 1rem); } .photos { grid-template-columns: repeat(6, 1fr); }
  th, td { padding: .2rem .45rem; }
}
"""
