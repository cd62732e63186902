"""What the project's own HTML pages share: one self-contained file each, no script, nothing fetched."""

import re
from collections.abc import Sequence
from html import escape

INK = "#010203"  # pictures are drawn in this colour, then handed to the page's text colour, dark or light
CSS = """
:root { color-scheme: light dark; --page: #fcfcfa; --ink: #23262b; --soft: #676c75; --line: #dcdcd6; --tint: #f2f2ee; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --ink: #dfe1e5; --soft: #9aa0aa; --line: #33373e; --tint: #1e2126; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 .8rem; font-weight: 650; }
.lead { font-size: 1.1rem; max-width: 46rem; margin: .8rem 0 0; }
p.soft { margin: 0; }
.soft, figcaption, td.why { color: var(--soft); }
.notice { border-left: 4px solid #d9772b; background: var(--tint); padding: .7rem 1rem; margin: 1.4rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.8rem 0 0; }
.tile { background: var(--tint); border-radius: 6px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.8rem; }
figure { margin: 0; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; margin-top: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; padding: .38rem 1rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; }
thead th { color: var(--soft); }
td.value { font-variant-numeric: tabular-nums; white-space: nowrap; }
table.plain th, table.plain td { overflow-wrap: anywhere; white-space: normal; }
table.plain th { width: 16rem; }
pre { background: var(--tint); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; font-weight: 500; padding: .4rem 0; }
@media (max-width: 40rem) {
  main { padding-top: 1.5rem; }
  table.figures td.why { display: block; border-bottom: 1px solid var(--line); padding-top: 0; }
  table.figures thead { display: none; }
  table.figures tr { display: grid; grid-template-columns: 1fr auto; }
  table.figures td.why { grid-column: 1 / -1; }
  table.figures th, table.figures td.value { border: 0; padding-bottom: 0; }
  table.plain th { width: 45%; } }
@media print { main { max-width: none; } figure, tr { break-inside: avoid; } }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def figure(svg: str | None, caption: str) -> str:
    """An SVG document of matplotlib as an HTML figure: its ink follows the page; ids that clash in one page go."""
    if svg is None:
        return ""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace(INK, "currentColor")
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"
