"""The trade of size against quality as a picture: what was predicted, what was measured, what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from edgeq.report.losses import SHOWN
from edgeq.report.plots import STYLE, svg_of


def front_plot(allocation: Mapping[str, Any]) -> str:
    """``edgeq.allocation.allocate.Found.record()`` as SVG text: MB against the loss, logarithmic."""
    front, tried, chosen = allocation["front"], allocation["tried"], allocation["chosen"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            *_line(front, "predicted_loss"), color="#3b6ea8", marker="o", markersize=3, label="predicted"
        )
        if tried:
            axes.plot(
                *_line(tried, "loss"), "s", color="#c0632b", markersize=5, label="measured, held-out text"
            )
        axes.plot(*_line([chosen], "loss"), "*", color="#1d7a46", markersize=14, label="written", zorder=3)
        axes.set_yscale("log")
        axes.set_xlabel("MB")
        axes.set_ylabel(SHOWN[allocation["measure"]].axis)
        axes.legend(frameon=False)
        return svg_of(figure)


def _line(points: list[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    return [point["nbytes"] / 1e6 for point in points], [point[key] for point in points]
