"""Emitting a graph node by node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_graphs import Tiny, counts, f32, names, normal, run

from edgeq.formats.onnx.builder import OPSET, ir_version_of


def test_a_graph_that_runs() -> None:
    b = Tiny()
    x = b.x("batch", 4)
    model = b.done(b.op("MatMul", x, b.const("w", normal(1, 4, 3))), shapes=[["batch", 3]])
    assert (model.ir_version, dict(model.opset_imports)) == (ir_version_of(OPSET), {"": OPSET})
    assert (model.producer_name, model.producer_version) == ("edgeq", "0")
    (y,) = run(model, x=normal(2, 5, 4))
    np.testing.assert_allclose(y, normal(2, 5, 4) @ normal(1, 4, 3), rtol=1e-5, atol=1e-6)


def test_weights_are_read_when_the_model_is_saved() -> None:
    calls = []

    def load() -> NDArray[np.float32]:
        calls.append(1)
        return normal(1, 4, 3)

    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 4), b.weight("w", np.float32, (4, 3), load)), shapes=[["n", 3]])
    assert not calls
    run(model, x=normal(2, 5, 4))
    assert calls == [1]


def test_one_weight_per_name() -> None:
    b = Tiny()
    assert b.const("w", normal(1, 4)) is b.const("w", normal(1, 4))


def test_equal_constants_are_shared_and_others_are_not() -> None:
    b = Tiny()
    assert b.constant([1, 2]) is b.constant([1, 2])
    different = [
        b.constant(1),
        b.constant([1]),
        b.constant([[1]]),
        b.constant(1, np.int32),
        b.constant(1, np.float32),
        b.constant([0] * 9 + [1]),  # the same first 32 bytes as the next one
        b.constant([0] * 9 + [2]),
    ]
    assert len({id(value) for value in different}) == len(different)
    assert len({value.name for value in different}) == len(different)


def test_split() -> None:
    b = Tiny()
    parts = b.split(b.x("n", 6), [2, 2, 2], axis=1)
    data = normal(1, 2, 6)
    for got, want in zip(
        run(b.done(*parts, shapes=[["n", 2]] * 3), x=data), np.split(data, 3, 1), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_an_input_left_out_in_the_middle() -> None:
    b = Tiny()
    y = b.op("Clip", b.x("n"), None, b.constant(0.5, np.float32))
    assert run(b.done(y, shapes=[["n"]]), x=f32([-2, 0, 2]))[0].tolist() == [-2, 0, 0.5]


def test_inputs_left_out_at_the_end_are_dropped() -> None:
    b = Tiny()
    assert len(b.op("Clip", b.x("n"), None, None).producer().inputs) == 1  # type: ignore[union-attr]


def test_inputs_weights_and_one_value_twice_as_outputs() -> None:
    b = Tiny()
    x, w = b.x("n"), b.const("w", normal(1, 3))
    y = b.op("Neg", x)
    model = b.done(x, w, y, y, shapes=[["n"], [3], ["n"], ["n"]])
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y0", "y1", "y2", "y3"]
    assert names(model) == {"w"}
    assert counts(model) == {"Identity": 3, "Neg": 1}
    data = f32([1, 2])
    for got, want in zip(run(model, x=data), [data, normal(1, 3), -data, -data], strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_contrib_operator_brings_its_opset() -> None:
    b = Tiny()
    y = b.op("BiasGelu", b.x("n", 3), b.const("bias", normal(1, 3)), domain="com.microsoft")
    model = b.done(y, shapes=[["n", 3]])
    assert dict(model.opset_imports) == {"": OPSET, "com.microsoft": 1}
    run(model, x=normal(2, 2, 3))


@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint8", "float16"])
def test_dtypes(dtype: str) -> None:
    b = Tiny()
    value = b.constant([1, 0], dtype)
    assert value.dtype == ir.DataType.from_numpy(np.dtype(dtype))
    assert value.const_value is not None
    assert value.const_value.numpy().tolist() == [1, 0]
