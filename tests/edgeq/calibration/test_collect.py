"""Collecting ranges from a run of the float graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, f32, names, normal, run

from edgeq.calibration.collect import collect_ranges
from edgeq.errors import EdgeqError
from edgeq.runtimes.onnxruntime import Feeds

MASK = np.float32(-3.4e38)
W = normal(1, 4, 4)


def masked() -> tuple[ir.Model, dict[str, str]]:
    """Scores plus a mask, their softmax, and linear layers over both; names by what they are."""
    b = Tiny()
    x = b.x("batch", "tokens", 4)
    scores = b.op("Add", b.op("MatMul", x, b.const("w0", W)), b.const("mask", f32([0, 0, 0, MASK])))
    attention = b.op("Softmax", scores, axis=-1)
    y0 = b.op("MatMul", attention, b.const("w1", W))
    y1 = b.op(
        "MatMul", b.op("Max", scores, b.constant(MASK, np.float32)), b.const("w2", W * np.float32(1e-30))
    )
    model = b.done(y0, y1, attention, shapes=[["batch", "tokens", 4]] * 3)
    third = y1.producer()
    assert third is not None
    assert third.inputs[0] is not None
    return model, {"x": "x", "attention": str(attention.name), "scores": str(third.inputs[0].name)}


def sample(seed: int, batch: int, tokens: int, padded: int = 0) -> Feeds:
    mask = np.ones((batch, tokens), np.int64)
    mask[0, tokens - padded :] = 0
    x = normal(seed, batch, tokens, 4)
    x[mask == 0] = 1000  # what stands there must not count
    return {"x": x, "attention_mask": mask}


def floats(feeds: Feeds, name: str = "x") -> Floats:
    return feeds[name].astype(np.float32)


def test_the_mask_never_reaches_a_range(tmp_path: Path) -> None:
    model, known = masked()
    samples = [sample(1, 1, 3), sample(2, 2, 5), sample(3, 1, 1)]
    ranges = collect_ranges(model, iter(samples), tmp_path)
    assert set(ranges) == set(known.values())
    scores = np.concatenate([(floats(s) @ W)[..., :3].ravel() for s in samples])
    assert ranges[known["scores"]].low == pytest.approx(min(scores.min(), 0), rel=1e-4)
    assert ranges[known["scores"]].high == pytest.approx(max(scores.max(), 0), rel=1e-4)
    assert ranges[known["scores"]].channel_max[3] == 0
    assert 0 <= ranges[known["attention"]].low <= ranges[known["attention"]].high <= 1
    assert all(np.isfinite(c.channel_max).all() for c in ranges.values())


def test_padding_does_not_count(tmp_path: Path) -> None:
    model, _ = masked()
    samples = [sample(1, 2, 5, padded=3), sample(2, 1, 4)]
    ranges = collect_ranges(model, samples, tmp_path)
    real = np.concatenate([floats(s)[s["attention_mask"] == 1] for s in samples])
    assert (ranges["x"].low, ranges["x"].high) == (real.min(), real.max())
    np.testing.assert_array_equal(ranges["x"].channel_max, np.abs(real).max(axis=0))


def test_a_vector_per_sentence_is_not_taken_for_tokens(tmp_path: Path) -> None:
    """A pooled ``[batch, width]`` value whose shape happens to be that of the mask."""
    b = Tiny()
    pooled = b.op("ReduceMean", b.x("batch", "tokens", 4), axes=[1], keepdims=0)
    model = b.done(b.op("MatMul", pooled, b.const("w", W)), shapes=[["batch", 4]])
    (collector,) = collect_ranges(model, [sample(1, 2, 4, padded=1), sample(2, 2, 3)], tmp_path).values()
    assert collector.channel_max.shape == (4,)


def test_feeds_without_a_mask(tmp_path: Path) -> None:
    model, _ = masked()
    x = normal(1, 2, 3, 4)
    assert collect_ranges(model, [{"x": x}], tmp_path)["x"].high == x.max()


def test_the_graph_is_as_it_was(tmp_path: Path) -> None:
    model, _ = masked()
    feeds = floats(sample(1, 1, 3))
    before = run(model, x=feeds)
    types, constants = counts(model), names(model)
    outputs = list(model.graph.outputs)
    collect_ranges(model, [sample(1, 1, 3)], tmp_path)
    assert len(outputs) == len(model.graph.outputs)
    assert all(a is b for a, b in zip(outputs, model.graph.outputs, strict=True))
    assert (counts(model), names(model)) == (types, constants)
    for a, b in zip(run(model, x=feeds), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == []


def test_progress(tmp_path: Path) -> None:
    seen: list[int] = []
    collect_ranges(masked()[0], [sample(i, 1, 2) for i in range(3)], tmp_path, seen.append)
    assert seen == [1, 2, 3]


def broken_samples() -> Iterator[Feeds]:
    yield sample(1, 1, 2)
    raise ValueError("no more")


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (broken_samples(), ValueError),
        ([{"x": normal(1, 2, 3)}], EdgeqError),  # a wrong rank
        ([{}], EdgeqError),
    ],
)
def test_nothing_stays_after_an_error(
    tmp_path: Path, samples: Iterator[Feeds], error: type[Exception]
) -> None:
    model, _ = masked()
    outputs = [value.name for value in model.graph.outputs]
    with pytest.raises(error):
        collect_ranges(model, samples, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert [value.name for value in model.graph.outputs] == outputs


def test_a_weight_that_cannot_be_read(tmp_path: Path) -> None:
    def load() -> Floats:
        raise EdgeqError("shard.safetensors: is cut")

    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 4), b.weight("w", np.float32, (4, 4), load)), shapes=[["n", 4]])
    with pytest.raises(EdgeqError, match=r"^shard\.safetensors: is cut$"):
        collect_ranges(model, [sample(1, 1, 2)], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(model.graph.outputs) == 1


def test_no_samples(tmp_path: Path) -> None:
    ranges = collect_ranges(masked()[0], [], tmp_path)
    assert {c.samples for c in ranges.values()} == {0}


def test_a_graph_without_linear_layers(tmp_path: Path) -> None:
    b = Tiny()
    model = b.done(b.op("Relu", b.x("n", 4)), shapes=[["n", 4]])
    assert collect_ranges(model, [{"x": normal(1, 2, 4)}], tmp_path) == {}


def test_a_constant_as_activation(tmp_path: Path) -> None:
    b = Tiny()
    y = b.op("MatMul", b.const("c", normal(1, 2, 4)), b.const("w", W))
    model = b.done(b.op("Add", y, b.x(1, 4)), shapes=[[2, 4]])
    assert collect_ranges(model, [{"x": normal(2, 1, 4)}], tmp_path)["c"].high == normal(1, 2, 4).max()
