"""Samples of one shape run together, where that changes nothing that is watched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, f32, normal

from edgeq.calibration.collect import collect, collect_ranges
from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import SMOOTHING_SAMPLES, SmoothedCollector
from edgeq.formats.onnx.passes.smooth import smooth, smoothable
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

W = normal(7, 4, 4)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each run of a session had."""
    seen: list[int] = []
    run = OnnxSession.run

    def counted(self: OnnxSession, feeds: Feeds, outputs: list[str]) -> list[Floats]:
        seen.append(len(feeds["x"]))
        return run(self, feeds, outputs)

    monkeypatch.setattr(OnnxSession, "run", counted)
    return seen


def chain(first: str) -> ir.Model:
    """An operator over all axes but the first, or over all, then linear layers."""
    b = Tiny()
    x = b.x("batch", "tokens", 4)
    h = b.op("Add", x, b.op(first, x, axes=[1] if first == "ReduceMean" else [0], keepdims=1))
    y = b.op("MatMul", b.op("MatMul", h, b.const("w0", W)), b.const("w1", W))
    return b.done(y, shapes=[["batch", "tokens", 4]])


def masked(seed: int, tokens: int, padded: int) -> Feeds:
    mask = (np.arange(tokens) < tokens - padded).astype(np.int64)[None]
    x = normal(seed, 1, tokens, 4) * np.float32(1 + seed)
    x[mask == 0] = 1000
    return {"x": x, "attention_mask": mask}


def one_by_one(model: ir.Model, samples: list[Feeds], folder: Path) -> dict[str, RangeCollector]:
    """No shape comes twice in a pass."""
    collectors = collect_ranges(model, [], folder)
    for feeds in samples:
        collect(model, collectors, [feeds], folder)
    return collectors


def expect_alike(found: dict[str, RangeCollector], expected: dict[str, RangeCollector]) -> None:
    assert set(found) == set(expected)
    for name, collector in found.items():
        known = expected[name].state()
        for what, array in collector.state().items():
            if what != "counts":  # a value may fall into the bin beside, when it was rounded otherwise
                np.testing.assert_allclose(array, known[what], rtol=1e-4, atol=1e-5)
        assert np.abs(collector.state()["counts"] - known["counts"]).sum() <= 4


def test_samples_of_one_shape_share_runs(tmp_path: Path, ran: list[int]) -> None:
    """Of any length and padding; moving averages are those of the samples as they came."""
    model = chain("ReduceMean")
    samples = [masked(i, 3 + i % 2, i % 3) for i in range(9)]
    found = collect_ranges(model, samples, tmp_path)
    assert sorted(ran) == [1, 1, 2, 3, 4]
    assert {collector.samples for collector in found.values()} == {9}
    ran.clear()
    expect_alike(found, one_by_one(model, samples, tmp_path))
    assert set(ran) == {1}


def test_a_graph_over_all_samples_of_a_run_gets_one(tmp_path: Path, ran: list[int]) -> None:
    model = chain("ReduceMax")
    samples: list[Feeds] = [{"x": normal(i, 1, 3, 4)} for i in range(5)]
    found = collect_ranges(model, samples, tmp_path)
    assert ran == [1, 1, 2, 1, 1, 1]
    expect_alike(found, one_by_one(model, samples, tmp_path))


def test_a_graph_of_one_row_gets_one(tmp_path: Path, ran: list[int]) -> None:
    b = Tiny()
    y = b.op("MatMul", b.op("Reshape", b.x("batch", 3, 4), b.constant([1, 3, 4], np.int64)), b.const("w", W))
    model = b.done(y, shapes=[[1, 3, 4]])
    samples: list[Feeds] = [{"x": normal(i, 1, 3, 4)} for i in range(3)]
    found = collect_ranges(model, samples, tmp_path)
    assert ran == [1, 1, 2, 1]
    assert next(iter(found.values())).samples == 3


def test_an_input_without_axes_gets_one(tmp_path: Path, ran: list[int]) -> None:
    b = Tiny()
    h = b.op("Add", b.x("batch", 4), b.x(name="rate"))
    model = b.done(b.op("MatMul", h, b.const("w", W)), shapes=[["batch", 4]])
    samples: list[Feeds] = [{"x": normal(i, 1, 4), "rate": np.array(i, np.float32)} for i in range(3)]
    collect_ranges(model, samples, tmp_path)
    assert ran == [1, 1, 1]


@pytest.mark.parametrize("count", [3, SMOOTHING_SAMPLES + 40])
def test_a_smoothed_range_is_that_of_the_smoothed_graph(tmp_path: Path, count: int) -> None:
    b = Tiny()
    h = b.norm(b.x("batch", "tokens", 4), b.const("g", f32([1, 9, 2, 1])), b.const("b", f32([0, 0, 1, 0])))
    model = b.done(b.op("MatMul", h, b.const("w", W)), h, shapes=[["batch", "tokens", 4]] * 2)
    samples: list[Feeds] = [{"x": normal(i, 1, 2 + i % 3, 4)} for i in range(count)]
    (smoothing,) = smoothable(model)
    (found,) = collect_ranges(model, samples, tmp_path, smoothed={h: smoothing.scales}).values()
    assert isinstance(found, SmoothedCollector)
    (first,) = collect_ranges(model, samples[:SMOOTHING_SAMPLES], tmp_path).values()
    np.testing.assert_allclose(found.seen, first.channel_max, rtol=1e-6)
    smooth(model, {str(h.name): found.seen})
    assert smoothing.read_now is not h
    (expected,) = collect_ranges(model, samples, tmp_path).values()
    found.seen = np.zeros(0, np.float32)
    assert found.samples == count
    np.testing.assert_allclose(found.channel_max, expected.channel_max, rtol=1e-5)
    np.testing.assert_allclose(found.channel_mean, expected.channel_mean, atol=1e-5)
    assert found.percentile(99).high == pytest.approx(expected.percentile(99).high, rel=2e-3)
