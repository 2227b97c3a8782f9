"""The plots of report.html, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE: Any = {"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def error_by_layer(lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """``edgeq.report.by_layer.errors_by_role`` as SVG text, one line per role."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.subplots()
        for role, points in lines.items():
            layers, errors = zip(*points, strict=True)
            axes.plot(layers, errors, marker="o", markersize=3, linewidth=1, label=role)
        axes.set_xlabel("layer")
        axes.set_ylabel("rounding error, % of the weight")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return svg_of(figure)


def svg_of(figure: Figure) -> str:
    """The figure as an element of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
