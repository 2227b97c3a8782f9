"""The plots of report.html, as SVG text."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LAYER = re.compile(r"blk\.(\d+)\.(.+?)(?:_smooth)?\.?(?:weight)?(?:_smooth)?(?:_int8|_scale)?$")
STYLE: Any = {"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def size_by_type(tensors: Sequence[Mapping[str, Any]]) -> str:
    """Bytes per type, as horizontal bars."""
    sizes: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        sizes[tensor["type_name"]] += tensor["nbytes"]
    ordered = sorted(sizes.items(), key=lambda item: item[1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 0.6 + 0.35 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([name for name, _ in ordered], [size / 1e6 for _, size in ordered], color="#3b6ea8")
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_xlabel("MB")
        axes.margins(x=0.12)
        return svg_of(figure)


def error_by_layer(tensors: Sequence[Mapping[str, Any]]) -> str | None:
    """Relative rounding error of each quantized weight against its layer, one line per role; None without any."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for tensor in tensors:
        match = LAYER.match(tensor["name"])
        if match and tensor["error"] > 0:
            lines[match[2]].append((int(match[1]), 100 * tensor["error"]))
    if not lines:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.subplots()
        for role, points in sorted(lines.items()):
            layers, errors = zip(*sorted(points), strict=True)
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
