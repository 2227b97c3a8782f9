"""The per-layer view as SVG: three pictures over the layers, one line for each role of a tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgeq.report.by_layer import LAYER
from edgeq.report.plots import STYLE, svg_of

_PICTURES = (
    ("weight_snr", "weight\nsignal to noise, dB", "linear"),
    ("output_snr", "output of the layer\nsignal to noise, dB", "linear"),
    ("kl_mean", "KL, only this\ntensor quantized", "log"),
)


def layer_view(layers: Sequence[Mapping[str, Any]]) -> str:
    """Weights' and outputs' signal to noise and the KL of each tensor alone; tensors of no layer stand at the right."""
    placed, others = _by_role(layers)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 7.2), layout="constrained")
        for axes, (key, label, scale) in zip(figure.subplots(3, 1, sharex=True), _PICTURES, strict=True):
            axes.set_yscale(scale)
            axes.set_ylabel(label)
            _draw(axes, placed, others, key)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        beyond = max((layer for points in placed.values() for layer, _ in points), default=0) + 1
        axes.xaxis.set_major_formatter(lambda x, _: "none" if x == beyond and others else f"{x:.0f}")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        return svg_of(figure)


def _by_role(layers: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[tuple[int, Any]]], dict[str, Any]]:
    placed: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    others = {}
    for one in layers:
        match = LAYER.match(one["name"])
        if match:
            placed[match[2]].append((int(match[1]), one))
        else:
            others[one["name"].removesuffix(".weight")] = one
    return placed, others


def _draw(
    axes: Axes, placed: Mapping[str, list[tuple[int, Any]]], others: Mapping[str, Any], key: str
) -> None:
    last = max((layer for points in placed.values() for layer, _ in points), default=0)
    colours = mpl.colormaps["tab10"].colors + mpl.colormaps["Dark2"].colors  # type: ignore[attr-defined]
    for number, (role, points) in enumerate(sorted(placed.items())):
        found = [(layer, one[key]) for layer, one in sorted(points, key=lambda p: p[0]) if _shown(one, key)]
        if found:
            x, y = zip(*found, strict=True)
            colour = colours[number % len(colours)]
            axes.plot(x, y, marker="o", markersize=3, linewidth=1, color=colour, label=role)
    for number, (name, one) in enumerate(sorted(others.items())):
        if _shown(one, key):
            marker = "sD^v"[number % 4]
            axes.plot(last + 1, one[key], marker=marker, markersize=5, linestyle="", color="#444", label=name)


def _shown(one: Mapping[str, Any], key: str) -> bool:
    """A value that has a place in the picture: a logarithm of KL needs it above zero."""
    return key in one and (key != "kl_mean" or one[key] > 0)
