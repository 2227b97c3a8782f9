"""Layers inside of Loop and Scan: what they read is seen, and they are quantized there, or it is said why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import loaded, saved
from loop_graphs import (
    HIDDEN,
    WEIGHTS,
    WIDTH,
    branch_in_scan,
    convolution_in_scan,
    deep,
    growing_loop,
    loop,
    loop_in_branch,
    scan,
)
from onnx_graphs import Floats, normal

import edgeq.onnx
from edgeq.calibration.collect import collect_ranges
from edgeq.calibration.inputs import Arrays
from edgeq.formats.onnx.placement import values_to_watch
from edgeq.formats.onnx.prepare import prepare
from edgeq.onnx import Request, quantize

GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "loop": loop,
    "growing": growing_loop,
    "scan": scan,
    "loop in loop": lambda: deep("Loop"),
    "scan in loop": lambda: deep("Scan"),
    "branch in loop": lambda: deep("If"),
    "loop in branch": loop_in_branch,
    "convolution in scan": convolution_in_scan,
}
SHAPES = {"x": (2, WIDTH), "h": (2, HIDDEN), "xs": (5, 2, WIDTH), "start": (3, 3, 6, 6)}


def feeds(model: onnx.ModelProto, seed: int) -> Arrays:
    names = [one.name for one in model.graph.input]
    shapes = SHAPES | ({"xs": (4, 3, 3, 6, 6)} if "start" in names else {})
    return {name: normal(10 * seed + i, *shapes[name]) for i, name in enumerate(names)}


def nodes(graph: onnx.GraphProto, depth: int = 0) -> Iterator[tuple[onnx.NodeProto, int]]:
    for one in graph.node:
        yield one, depth
        for attribute in one.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g, depth + 1)


def states(x: Floats, h: Floats, rounds: int) -> Floats:
    """What the cell inside of the inner loop reads as its state, in all rounds of both loops."""
    seen = []
    for _ in range(rounds):
        for _ in range(2):
            seen.append(h)
            h = np.tanh(x @ WEIGHTS["wx"] + h @ WEIGHTS["wh"] + WEIGHTS["b"])
        x = np.tanh(h @ WEIGHTS["wo"])
    return np.stack(seen)


@pytest.mark.parametrize("kind", GRAPHS)
def test_answers_stay_near(kind: str, tmp_path: Path) -> None:
    """Within 1 % of their range, on data not seen, whatever was calibrated on before."""
    model = GRAPHS[kind]()
    source = saved(model, tmp_path / "m.onnx")
    data = [feeds(model, i) for i in range(10)]
    record = quantize(Request(source, tmp_path / "q.onnx", "int8", data, proof=False))
    assert not any("no sample says" in note for note in record["notes"])
    floats, rounded = edgeq.onnx.session(source), edgeq.onnx.session(record["files"][0])
    for seed in (50, 51):
        for a, b in zip(*(one.run(None, feeds(model, seed)) for one in (rounded, floats)), strict=True):
            assert np.abs(a - b).mean() <= 0.01 * np.ptp(b)


def test_ranges_of_both_depths(tmp_path: Path) -> None:
    """The collectors' numbers are those of all rounds."""
    source = deep("Loop")
    model = loaded(source)
    prepare(model)
    data = [feeds(source, i) for i in range(3)]
    found = collect_ranges(model, data, tmp_path, values=values_to_watch(model))
    wanted = np.concatenate([states(one["x"], one["h"], 6) for one in data])
    collector = found["h2"]
    assert collector.samples == 3 * 6 * 2
    assert (collector.low, collector.high) == pytest.approx((wanted.min(), wanted.max()), rel=1e-5)
    np.testing.assert_allclose(collector.channel_max, np.abs(wanted).max(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(collector.channel_mean, wanted.mean(axis=(0, 1)), atol=1e-6)


def test_channels_of_pictures_inside_of_a_scan(tmp_path: Path) -> None:
    source = convolution_in_scan()
    model = loaded(source)
    prepare(model)
    found = collect_ranges(model, [feeds(source, 1)], tmp_path, values=values_to_watch(model))
    assert found["s"].channel_max.shape == (3,)


@pytest.mark.parametrize(
    ("kind", "depth"), [("growing", 1), ("scan", 1), ("scan in loop", 2), ("loop in branch", 2)]
)
def test_static_inside(kind: str, depth: int, tmp_path: Path) -> None:
    model = GRAPHS[kind]()
    source = saved(model, tmp_path / "m.onnx")
    data = [feeds(model, i) for i in range(10)]
    path = quantize(Request(source, tmp_path / "q.onnx", "int8", data, proof=False))["files"][0]
    onnx.checker.check_model(path, full_check=True)
    assert max(d for one, d in nodes(onnx.load(path).graph) if one.op_type == "QuantizeLinear") == depth


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    """Values of branches inside of a Scan have no one shape; the layer behind them is static all the same."""
    model = branch_in_scan()
    source = saved(model, tmp_path / "m.onnx")
    options: dict[str, Any] = {"calibration": [feeds(model, i) for i in range(8)], "proof": False}
    record = quantize(Request(source, tmp_path / "q.onnx", "int8", **options))
    (note,) = record["notes"]
    said, names = note.split(": ")
    assert said == "quantized at run time, because no sample says a range"
    assert set(names.split(", ")) == {"MatMul_p", "MatMul_q"}
    kinds = [(one.op_type, d) for one, d in nodes(onnx.load(record["files"][0]).graph)]
    assert [d for kind, d in kinds if kind == "DynamicQuantizeLinear"] == [2, 2]
    assert [d for kind, d in kinds if kind == "QuantizeLinear"] == [1]
