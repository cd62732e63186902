"""How the project's pictures look, and how they are drawn: as SVG for a page, or as a PNG on white.

A panel is a function that draws on given axes, and returns False if it has nothing to show.
"""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from preprocessing.base.files import written

Panel: TypeAlias = Callable[[Axes], bool | None]

# Mid tones: they read on white as well as on a dark page.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b7dd8", "#d9772b", "#2f9e6e", "#a05bbf", "#8a8f98"
COMPARE_COLOURS = (ORANGE, PURPLE, GREEN, "#c4455f", "#8c7a2e")
INK = "#010203"  # an SVG's axes and words are drawn in this colour, then handed to the page's text colour, dark or light
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a run or a source may be called "$x"
    "svg.fonttype": "none",
}
INKS = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
COUNT = FuncFormatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:g}")


@dataclass(frozen=True)
class Picture:
    """A drawn panel, to stand in a page."""

    svg: Markup
    caption: str


def pictures(panels: Iterable[tuple[str, Panel, str]]) -> list[Picture]:
    """(name, panel, caption): each drawn, without those that have nothing to show. In one page the names must differ."""
    drawn = ((draw_svg(name, panel), caption) for name, panel, caption in panels)
    return [Picture(svg, caption) for svg, caption in drawn if svg is not None]


def draw_svg(name: str, panel: Panel) -> Markup | None:
    """A panel as an SVG element to stand among others: no fixed size, no metadata, no id that one of another name has too."""
    with matplotlib.rc_context(STYLE | INKS | {"svg.hashsalt": name}):
        figure = Figure(figsize=(5.4, 3.3), dpi=72)  # as SVG is drawn
        if panel(figure.subplots()) is False:
            return None
        ConstrainedLayoutEngine().execute(figure)  # once: a figure that has it as its own is drawn twice
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    return Markup(svg.replace(INK, "currentColor"))


def write_png(path: Path, size_inches: tuple[float, float], draw: Callable[[Figure], object]) -> None:
    """What `draw` puts on a figure of that size, as a file."""
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "savefig.facecolor": "white"}):
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure)
        with written(path) as file:
            figure.savefig(file, format="png", dpi=150)
