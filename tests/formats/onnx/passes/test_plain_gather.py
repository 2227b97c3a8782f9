"""Gathers of blocks against ONNX Runtime's own operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Tiny, run

from edgeq.formats.onnx.passes.plain_gather import OPERATOR, plain_gather

ROWS, BLOCKS, SIZE = 9, 4, 16


def _graph(bits: int, zeros: bool, dtype: type = np.uint8) -> ir.Model:
    random = np.random.default_rng(bits + zeros)
    b = Tiny()
    codes = random.integers(0, 256, (ROWS, BLOCKS * SIZE * bits // 8)).astype(dtype)
    inputs = [
        b.const("codes", codes),
        b.ids(),
        b.const("scales", random.standard_normal((ROWS, BLOCKS)).astype(np.float32)),
    ]
    if zeros:
        inputs.append(b.const("zeros", random.integers(0, 256, (ROWS, BLOCKS * bits // 8)).astype(dtype)))
    attributes = {"bits": bits, "block_size": SIZE, "gather_axis": 0, "quantize_axis": 1}
    y = b.tape.op(OPERATOR, inputs, attributes, domain="com.microsoft")
    model = b.done(y, shapes=[["batch", "tokens", BLOCKS * SIZE]])
    model.opset_imports["com.microsoft"] = 1
    return model


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_same_rows(bits: int, zeros: bool) -> None:
    """Rules 1 to 3."""
    ids = {"ids": np.array([[0, 8, 3], [5, 5, 1]], np.int64)}
    expected = run(_graph(bits, zeros), **ids)[0]
    model = _graph(bits, zeros)
    assert plain_gather(model) == 1
    assert OPERATOR not in {node.op_type for node in model.graph}
    np.testing.assert_array_equal(run(model, **ids)[0], expected)


def test_other_axes_stay() -> None:
    """Rule 4."""
    model = _graph(8, False)
    node = next(node for node in model.graph if node.op_type == OPERATOR)
    node.attributes["gather_axis"] = ir.AttrInt64("gather_axis", 1)
    assert plain_gather(model) == 0
