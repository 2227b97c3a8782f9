"""Int8 embedding tables, rule by rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Tiny, counts, error, names, normal, run

from edgeq.formats.onnx.int8 import FULL_RANGE, SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.static_int8 import static_int8

TABLE = normal(1, 32, 16)
IDS = np.array([[0, 1, 31], [-1, 5, 5]])
CAP = 0.01
ROW = {"Gather": 2, "Cast": 1, "Unsqueeze": 1, "Mul": 1}


@pytest.mark.parametrize("axis", [None, 0, -2])
def test_rule_1(axis: int | None) -> None:
    b = Tiny()
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    y = b.op("Gather", b.const("table", TABLE), b.ids(), **attributes)
    model = b.done(y, shapes=[["batch", "tokens", 16]])
    assert embedding_int8(model, min_rows=32) == 1
    assert counts(model) == ROW
    assert names(model) == {"table_int8", "table_scale", "axes_last"}
    assert error(run(model, ids=IDS), [TABLE[IDS]]) <= CAP


def test_two_gathers_over_one_table() -> None:
    b = Tiny()
    ids, table = b.ids(), b.const("table", TABLE)
    y = b.op("Add", b.op("Gather", table, ids), b.op("Gather", table, b.constant([3])))
    model = b.done(y, shapes=[["batch", "tokens", 16]])
    assert embedding_int8(model, min_rows=8) == 2
    assert names(model) - {"const_int64_1_0300000000000000"} == {"table_int8", "table_scale", "axes_last"}
    assert error(run(model, ids=IDS), [TABLE[IDS] + TABLE[3]]) <= CAP


def test_one_id_and_a_graph_output_that_is_read_too() -> None:
    b = Tiny()
    y = b.op("Gather", b.const("table", TABLE), b.input("id", ir.DataType.INT64, []))
    model = b.done(y, b.op("Neg", y), shapes=[[16], [16]])
    assert embedding_int8(model, min_rows=8) == 1
    assert error(run(model, id=np.array(7)), [TABLE[7], -TABLE[7]]) <= CAP


def test_a_table_of_zeros_and_one_that_others_read() -> None:
    table = np.zeros((32, 16), np.float32)
    b = Tiny()
    value = b.const("table", table)
    model = b.done(
        b.op("Gather", value, b.ids()), b.op("Neg", value), shapes=[["batch", "tokens", 16], [32, 16]]
    )
    assert embedding_int8(model, min_rows=8) == 1
    assert "table" in names(model)
    assert not run(model, ids=IDS)[0].any()


def test_an_axes_constant_of_the_graphs_own() -> None:
    b = Tiny()
    y = b.op("Gather", b.const("table", TABLE), b.ids())
    y = b.op("Add", y, b.const("axes_last", normal(3, 16)))
    model = b.done(y, shapes=[["batch", "tokens", 16]])
    assert embedding_int8(model, min_rows=8) == 1
    assert error(run(model, ids=IDS), [TABLE[IDS] + normal(3, 16)]) <= CAP


def test_what_is_left_alone() -> None:
    b = Tiny()
    ids = b.ids()
    replaceable = b.const("replaceable", normal(2, 32, 16))
    values = [
        b.op("Gather", b.const("small", normal(1, 31, 16)), ids),
        b.op("Gather", b.const("wide", normal(1, 32, 40)), ids, axis=1),
        b.op("Gather", b.const("flat", normal(1, 64)), ids),
        b.op("Cast", b.op("Gather", b.const("double", TABLE.astype("f8")), ids), to=ir.DataType.FLOAT),
        b.op(
            "Cast", b.op("Gather", b.const("integers", np.ones((32, 2), np.int64)), ids), to=ir.DataType.FLOAT
        ),
        b.op("Gather", b.op("Neg", b.const("computed", TABLE)), ids),
        b.op("Gather", replaceable, ids),
    ]
    shapes: list[list[int | str]] = [["batch", "tokens", size] for size in (16, 0, 0, 16, 2, 16, 16)]
    shapes[1], shapes[2] = [32, "batch", "tokens"], ["batch", "tokens"]
    model = b.done(*values, shapes=shapes)
    model.graph.inputs.append(replaceable)
    types = counts(model)
    assert embedding_int8(model, min_rows=32) == 0
    assert counts(model) == types


def tied() -> ir.Model:
    b = Tiny()
    ids, table = b.ids(), b.const("table", TABLE)
    h = b.op("Gather", table, ids)
    y = b.op("MatMul", h, b.op("Transpose", table, perm=[1, 0]))
    return b.done(y, shapes=[["batch", "tokens", 32]])


WANTED = [TABLE[IDS] @ TABLE.T]


@pytest.mark.parametrize("static", [False, True])
def test_rule_2_a_tied_head_shares_the_codes(static: bool) -> None:
    model = tied()
    if static:
        activation = next(str(node.inputs[0].name) for node in model.graph if node.op_type == "MatMul")  # type: ignore[union-attr]
        assert static_int8(model, SAFE_RANGE, {activation: ActivationRange(-4, 4)}) == 1
    else:
        assert dynamic_int8(model, SAFE_RANGE) == 1
    assert embedding_int8(model, min_rows=8) == 1
    assert error(run(model, ids=IDS), WANTED) <= 0.04
    assert [name for name in names(model) if name.startswith("table_int8")] == ["table_int8"]
    assert "table" not in names(model)


def test_rule_2_codes_beyond_the_heads_limit_are_not_shared() -> None:
    """The other order of passes: full-range codes of the embedding must not reach a saturating product."""
    model = tied()
    assert embedding_int8(model, min_rows=8) == 1
    assert dynamic_int8(model, SAFE_RANGE) == 1
    assert error(run(model, ids=IDS), WANTED) <= 0.04
    product = next(node for node in model.graph if node.op_type == "MatMulInteger")
    assert product.inputs[1] is not None
    transpose = product.inputs[1].producer()
    assert transpose is not None
    assert transpose.inputs[0] is not None
    assert transpose.inputs[0].const_value is not None
    codes = transpose.inputs[0].const_value.numpy().astype(int)
    assert np.abs(codes[:, 0::2] + codes[:, 1::2]).max() <= 2 * SAFE_RANGE


def test_rule_2_the_other_order_with_one_limit() -> None:
    model = tied()
    assert embedding_int8(model, min_rows=8) == 1
    assert dynamic_int8(model, FULL_RANGE) == 1
    assert [name for name in names(model) if name.startswith("table_int8")] == ["table_int8"]
    assert error(run(model, ids=IDS), WANTED) <= 0.3  # without VNNI full-range products saturate
