"""The per-layer view as SVG: three pictures over the layers, one line for each role of a tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgeq.report.by_layer import place_of
from edgeq.report.losses import Shown, shown_of
from edgeq.report.plots import STYLE, svg_of

_RATIOS = (
    ("weight_snr", "weight\nsignal to noise, dB"),
    ("output_snr", "output of the layer\nsignal to noise, dB"),
)
_Number = Callable[[Mapping[str, Any]], float | None]


def layer_view(layers: Sequence[Mapping[str, Any]]) -> str:
    """Weights' and outputs' signal to noise and the loss of each tensor alone; those of no layer stand at the right."""
    placed, others = _by_role(layers)
    measure = shown_of(layers[0])
    pictures: list[tuple[_Number, str, str]] = [
        (partial(_ratio, key), label, "linear") for key, label in _RATIOS
    ]
    pictures.append((partial(_loss, measure), f"{measure.name}, only this\ntensor quantized", "log"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 7.2), layout="constrained")
        for axes, (number, label, scale) in zip(figure.subplots(3, 1, sharex=True), pictures, strict=True):
            axes.set_yscale(scale)
            axes.set_ylabel(label)
            _draw(axes, placed, others, number)
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
        place = place_of(one["name"])
        if place:
            placed[place[1]].append((place[0], one))
        else:
            others[one["name"].removesuffix(".weight")] = one
    return placed, others


def _draw(
    axes: Axes, placed: Mapping[str, list[tuple[int, Any]]], others: Mapping[str, Any], number: _Number
) -> None:
    last = max((layer for points in placed.values() for layer, _ in points), default=0)
    colours = mpl.colormaps["tab10"].colors + mpl.colormaps["Dark2"].colors  # type: ignore[attr-defined]
    for place, (role, points) in enumerate(sorted(placed.items())):
        known = [(layer, number(one)) for layer, one in sorted(points, key=lambda p: p[0])]
        found = [(layer, value) for layer, value in known if value is not None]
        if found:
            x, y = zip(*found, strict=True)
            colour = colours[place % len(colours)]
            axes.plot(x, y, marker="o", markersize=3, linewidth=1, color=colour, label=role)
    for place, (name, one) in enumerate(sorted(others.items())):
        value = number(one)
        if value is not None:
            marker = "sD^v"[place % 4]
            axes.plot(last + 1, value, marker=marker, markersize=5, linestyle="", color="#444", label=name)


def _ratio(key: str, one: Mapping[str, Any]) -> float | None:
    return one.get(key)


def _loss(measure: Shown, one: Mapping[str, Any]) -> float | None:
    """None where it has no place in the picture: its logarithm needs it above zero."""
    return measure.loss(one) or None
