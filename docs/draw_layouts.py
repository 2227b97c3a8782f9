"""Draws docs/layouts.svg: the packed block of some types on AVX2, from the layouts that the kernels use."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from edgeq.kernels_cpu.isa import AVX2
from edgeq.kernels_cpu.products.layout import Layout, layout_of
from edgeq.kernels_cpu.registry import kernels

TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0")
COLOURS = {"codes": "#4c78a8", "scales": "#f58518", "mins": "#e45756", "d": "#54a24b", "dmin": "#b279a2"}


def parts(layout: Layout) -> list[tuple[str, int]]:
    """What a block holds, in order, with bytes; equal units are told once by their number."""
    unit = [("codes", layout.code_bytes)]
    if layout.format.sub is not None:
        unit.append(("scales", layout.pair_bytes))
    if layout.has_mins:
        unit.append(("mins", layout.pair_bytes))
    floats = [(name, layout.float_bytes) for name in ("d", "dmin")[: layout.floats]]
    return unit * layout.units + floats


def draw(axes, layout: Layout) -> None:
    at, total = 0, layout.block_bytes
    for name, size in parts(layout):
        axes.barh(0, size, left=at, color=COLOURS[name], edgecolor="white")
        at += size
    assert at == total
    form = layout.format
    planes = " + ".join(f"{bits} bits" for bits in layout.planes)
    axes.set_title(
        f"{form.name}: {layout.rows} rows × {form.block} columns in {total:,} bytes "
        f"({8 * total / layout.rows / form.block:.3g} bits a weight); {layout.units} units of {layout.unit} columns; "
        f"codes in planes of {planes}",
        fontsize=8,
        loc="left",
    )
    axes.set_xlim(0, total)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    plt.rcParams["svg.hashsalt"] = "edgeq"
    figure, rows = plt.subplots(len(TYPES), figsize=(9, 6.5))
    for axes, name in zip(rows, TYPES, strict=True):
        module = kernels("edgeq.kernels_cpu.products", name)
        assert module is not None
        draw(axes, layout_of(module.FORMAT, AVX2))
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="lower center", ncol=len(COLOURS), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(Path(__file__).with_name("layouts.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
