"""Axes of the experiments' pictures."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter


def logarithmic(axes: Axes, which: Literal["x", "y", "both"]) -> None:
    """Make an axis, or both, logarithmic, with plain numbers at its ticks: the project's pictures set no mathematics."""
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if which in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
