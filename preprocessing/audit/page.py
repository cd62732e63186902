"""An audit as one self-contained HTML page. No script, nothing fetched."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.axes import Axes

from preprocessing.audit.audit import Audit
from preprocessing.audit.pictures import (
    document_panel,
    draw_svg,
    drawn_panel,
    frequency_panel,
    position_panel,
    sentence_panel,
    source_panel,
)
from preprocessing.audit.stream import left_out_lines

Panel = Callable[[Axes, Mapping[str, Any]], None]

# What a panel draws from (it is left out where the corpus could not be read so far), the panel, its caption.
PANELS: tuple[tuple[str, Panel, str], ...] = (
    ("document_tokens", document_panel, "With [SEP]. Bins are half octaves."),
    ("sentence_tokens", sentence_panel, "What a next sentence pair is cut from."),
    ("token_frequency", frequency_panel, "Over both splits. Natural text runs along the dashed line for a while."),
    ("sources", source_panel, "They differ where an epoch reads a source more or less than once."),
    ("masking", position_panel, "Each ordinary position should be predicted as often as any other."),
    ("masking", drawn_panel, "A tenth of the predicted positions show a token drawn from the whole vocabulary."),
)
CSS = """
:root { color-scheme: light dark; --page: #fcfcfa; --ink: #23262b; --soft: #676c75; --line: #dcdcd6; --tint: #f2f2ee;
  --good: #2f8a5f; --bad: #c23b3b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --ink: #dfe1e5; --soft: #9aa0aa; --line: #33373e; --tint: #1e2126; --good: #55b98a;
    --bad: #ef7a7a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 .8rem; font-weight: 650; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; font-weight: 600; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; max-width: 46rem; margin: .8rem 0 0; }
.soft, figcaption, td.expected { color: var(--soft); }
p.soft { margin: 0; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.notice { border-left: 4px solid var(--bad); background: var(--tint); padding: .7rem 1rem; margin: 1.4rem 0; }
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
table.checks th { width: 15rem; }
table.checks td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
table.numbers td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.beside { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; }
.beside > div { background: var(--tint); border-radius: 6px; padding: .7rem 1rem; font-size: .88rem; min-width: 0; }
.beside .source { white-space: pre-wrap; overflow-wrap: anywhere; }
.beside ol { margin: 0; padding-left: 1.8rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  main { padding-top: 1.5rem; }
  .beside { grid-template-columns: 1fr; }
  table.checks thead { display: none; }
  table.checks tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  table.checks th, table.checks td { display: block; width: auto; border: 0; padding: 0; } }
@media print { main { max-width: none; } figure, tr, .beside { break-inside: avoid; } }
"""


def page(found: Audit) -> str:
    """The page: verdict, checks, pictures, tables, documents beside their source text."""
    title = f"Audit of {found.figures['directory']}"
    sections = (_header(found), _checks(found), _pictures(found.figures), _tables(found.figures), _samples(found.figures))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(found: Audit) -> str:
    failed = [check for check in found.checks if not check.passed]
    if failed:
        names = ", ".join(escape(check.name) for check in failed)
        verdict = f'<p class="notice"><b>{len(failed)} of {len(found.checks)} checks failed:</b> {names}.</p>'
    else:
        verdict = f'<p class="lead">All <b>{len(found.checks)} checks passed</b>.</p>'
    directory = escape(found.figures["directory"])
    return f'<header>\n<h1>Corpus audit</h1>\n<p class="soft">{directory}</p>\n{verdict}\n{_tiles(found.figures)}\n</header>'


def _tiles(figures: Mapping[str, Any]) -> str:
    splits = figures.get("splits", {})
    shown = {f"{what}, {split}": row[what] for split, row in splits.items() for what in ("documents", "tokens")}
    shown["pieces"] = figures["vocab_size"]
    if masking := figures.get("masking"):
        shown["predictions looked at"] = masking["predictions"]
    tiles = "".join(f'<div class="tile"><b>{amount:,}</b><span>{escape(what)}</span></div>' for what, amount in shown.items())
    return f'<div class="tiles">{tiles}</div>'


def _checks(found: Audit) -> str:
    rows = []
    for check in found.checks:
        mark = '<span class="good">✓</span>' if check.passed else '<span class="bad">✗ failed</span>'
        rows.append(
            f"<tr><th>{mark} {escape(check.name)}</th><td>{escape(check.found)}</td>"
            f'<td class="expected">{escape(check.expected)}</td></tr>'
        )
    head = "<th>check</th><th>found</th><th>expected</th>"
    return f'<h2>Checks</h2>\n<table class="checks"><thead><tr>{head}</tr></thead>\n<tbody>{"".join(rows)}</tbody></table>'


def _pictures(figures: Mapping[str, Any]) -> str:
    drawn = [
        f"<figure>{draw_svg(panel, figures)}<figcaption>{escape(caption)}</figcaption></figure>\n"
        for needs, panel, caption in PANELS
        if figures.get(needs)
    ]
    return f'<h2>The corpus in pictures</h2>\n<div class="pictures">\n{"".join(drawn)}</div>' if drawn else ""


def _tables(figures: Mapping[str, Any]) -> str:
    parts = []
    if sources := figures.get("sources"):
        columns = list(next(iter(sources.values())))
        rows = [[name, *(_cell(column, row[column]) for column in columns)] for name, row in sources.items()]
        parts.append("<h2>Sources</h2>\n" + _table(["", *(column.replace("_", " ") for column in columns)], rows))
    if left_out := left_out_lines(figures.get("left_out", {})):
        parts.append("<h2>Left out</h2>\n" + "\n".join(f"<p>{escape(line)}</p>" for line in left_out))
    lengths = {"document": figures.get("document_tokens"), "sentence": figures.get("sentence_tokens")}
    rows = [[f"tokens of a {what}", *_quantiles(found)] for what, found in lengths.items() if found]
    if rows:
        quantiles = [f"{float(q):.0%}" for q in figures["document_tokens"]["quantiles"]]
        parts.append("<h2>Lengths</h2>\n" + _table(["", "count", "mean", "lowest", *quantiles, "highest"], rows))
    if (frequency := figures.get("token_frequency")) and frequency["most_frequent"]:
        pieces = " ".join(f"{piece} ({count:,})" for piece, count in frequency["most_frequent"])
        parts.append(
            f'<h2>Most frequent pieces</h2>\n<p>{escape(pieces)}</p>\n<p class="soft">{frequency["never_used"]:,} of '
            f"{frequency['ordinary_pieces']:,} ordinary pieces are never used.</p>"
        )
    return "\n".join(parts)


def _quantiles(found: Mapping[str, Any]) -> list[str]:
    whole = [found["lowest"], *found["quantiles"].values(), found["highest"]]
    return [f"{found['count']:,}", f"{found['mean']:,.1f}", *(f"{value:,}" for value in whole)]


def _cell(column: str, value: float) -> str:
    if column.endswith("share"):
        return f"{value:.2%}"
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in values)}</tr>" for name, *values in rows
    )
    return f'<div class="scroll"><table class="numbers"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _samples(figures: Mapping[str, Any]) -> str:
    if not (samples := figures.get("samples")):
        return ""
    parts = [
        "<h2>Documents and their source text</h2>",
        '<p class="soft">Left the text as the source has it, right what stands in the shard, decoded sentence by sentence. '
        "The tokenizer folds case.</p>",
    ]
    for sample in samples:
        name = f"{sample['title'] or sample['id'] or 'untitled'} · {sample['source']}"
        state = f"{sample['tokens']:,} tokens compared"
        verdict = f'<span class="bad">{escape(sample["difference"])}</span>' if sample["difference"] else "all alike"
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in sample["sentences"])
        parts.append(
            f"<h3>{escape(name)}</h3>\n"
            f'<p class="soft">{escape(sample["shard"])}, document {sample["document"]:,}: {state}: {verdict}</p>\n'
            f'<div class="beside"><div class="source">{escape(sample["text"])}</div><div><ol>{sentences}</ol></div></div>'
        )
    return "\n".join(parts)
