"""Weights in blocks, rule by rule, in both forms; what a graph answers against the values that its blocks stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_graphs import Floats, Tiny, counts, decoded, error, names, normal

from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.onnx.blocked import Scheme, quantize_rows
from edgeq.formats.onnx.passes.blocked_weights import BlockedOptions, Form, blocked_weights
from edgeq.formats.onnx.rows import set_rows

IDS = np.array([[0, 1, 31], [30, 5, 5]])
FORMS: list[Form] = ["standard", "ort"]
SCHEMES = [Scheme(4, 32), Scheme(4, 16, False), Scheme(8, 64), Scheme(8, 32, False)]
CLOSE = 1e-5


def run(model: ir.Model, **feeds: NDArray[Any]) -> list[Floats]:
    """With activations in float: level 1, which the standard form leaves to the session."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: list[Floats] = session.run(None, feeds)
    return result


def options(form: Form, scheme: Scheme = Scheme(4, 32), **more: Any) -> BlockedOptions:  # noqa: B008
    return BlockedOptions(form, scheme, accuracy_level=1, **({"min_rows": 32} | more))


class GridRows:
    """A weight that others quantized."""

    layout = "test, 4 bits"

    def __init__(self, grid: Grid) -> None:
        self.shape = grid.codes.shape[0], grid.codes.shape[1]
        self._grid = grid

    def rows(self, start: int, stop: int) -> Floats:
        return self.grid(start, stop).values()

    def grid(self, start: int, stop: int) -> Grid:
        return self._grid.reordered(np.arange(start, stop))

    def done(self) -> None:
        """Nothing to let go of."""


def grid_of(
    rows: int, columns: int, size: int, bits: int = 4, ordered: bool = True, offsets: bool = False
) -> Grid:
    random = np.random.default_rng(rows)
    groups = np.arange(columns) // size
    shape = rows, groups[-1] + 1
    return Grid(
        random.integers(0, 1 << bits, (rows, columns)).astype(np.int16),
        random.standard_normal(shape).astype(np.float16).astype(np.float32),
        random.integers(1, 1 << bits, shape).astype(np.int16),
        groups if ordered else random.permutation(groups),
        random.standard_normal(shape).astype(np.float16).astype(np.float32) if offsets else None,
    )


def product(grid: Grid | None, matrix: Floats) -> ir.Model:
    """x @ matrix.T, the matrix perhaps as others quantized it."""
    b = Tiny()
    weight = b.const("w", np.ascontiguousarray(matrix.T))
    if grid is not None:
        set_rows(weight, GridRows(grid))
    y = b.op("MatMul", b.x("n", matrix.shape[1]), weight)
    return b.done(y, shapes=[["n", len(matrix)]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_rule_1(form: Form, scheme: Scheme) -> None:
    matrix, x = normal(1, 48, 128), normal(2, 5, 128)
    model = product(None, matrix)
    result = blocked_weights(model, options(form, scheme))
    assert (result.linears, result.left) == (1, [])
    want = {"ort": {"MatMulNBits": 1}, "standard": {"DequantizeLinear": 1, "MatMul": 1}}[form]
    assert counts(model) == want
    zeros = set() if scheme.symmetric else {"w_zero_point"}
    assert names(model) == {f"w_int{scheme.bits}", "w_scale"} | zeros
    expected = x @ quantize_rows(matrix, scheme).values(128).T
    assert error(run(model, x=x), [expected]) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_a_gemm_with_its_bias_and_the_transpose(form: Form) -> None:
    b = Tiny()
    x, weight = b.x("n", 64), b.const("w", normal(1, 32, 64))
    y = b.op("Gemm", x, weight, b.const("bias", normal(2, 32)), transB=1)
    model = b.done(b.op("Relu", y), shapes=[["n", 32]])
    assert blocked_weights(model, options(form)).linears == 1
    values = quantize_rows(normal(1, 32, 64), Scheme(4, 32)).values(64)
    fed = normal(3, 4, 64)
    assert error(run(model, x=fed), [np.maximum(fed @ values.T + normal(2, 32), 0)]) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_a_width_that_the_size_does_not_divide(form: Form) -> None:
    """48 has blocks of 16 in the standard form; ONNX Runtime's fills the last one up."""
    matrix, x = normal(1, 8, 48), normal(2, 5, 48)
    model = product(None, matrix)
    assert blocked_weights(model, options(form)).linears == 1
    expected = x @ quantize_rows(matrix, Scheme(4, 32 if form == "ort" else 16)).values(48).T
    assert error(run(model, x=x), [expected]) <= CLOSE


def test_rule_6() -> None:
    matrix = normal(1, 8, 40)
    model = product(None, matrix)
    result = blocked_weights(model, options("standard"))
    assert (result.linears, result.left) == (0, ["node_MatMul_0"])
    assert error(run(model, x=normal(2, 3, 40)), [normal(2, 3, 40) @ matrix.T]) <= CLOSE
    model = product(None, normal(1, 8, 64))
    assert blocked_weights(model, options("ort", keep=lambda linear: linear.weight.name == "w")).linears == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("size", "bits", "offsets"), [(32, 4, False), (128, 4, False), (64, 8, False), (32, 4, True)]
)
def test_rules_2_and_3(form: Form, ordered: bool, size: int, bits: int, offsets: bool) -> None:
    """Stored bit for bit: the values that the blocks stand for are computed from the file's own tensors."""
    grid = grid_of(24, 256, size, bits, ordered, offsets)
    model = product(grid, grid.values())
    assert blocked_weights(model, options(form, Scheme(8, 32))).linears == 1
    codes = model.graph.initializers[f"w_int{bits}"]
    assert codes.meta["edgeq.handling"] == "repacked without loss"
    assert codes.const_value is not None
    x = normal(3, 5, 256)
    assert error(run(model, x=x), [x @ grid.values().T]) <= CLOSE
    stored = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    np.testing.assert_array_equal(decoded(stored, "w"), grid.values())
    assert codes.meta["edgeq.error"] == 0


@pytest.mark.parametrize("change", ["groups of 8", "codes beyond the bits", "a scale of infinity"])
def test_integers_that_no_block_holds_are_rounded(change: str) -> None:
    grid = grid_of(8, 64, 8 if change == "groups of 8" else 32, 8 if change == "codes beyond the bits" else 4)
    if change == "a scale of infinity":
        grid.scales[3, 1] = np.inf
        grid.codes[3, 32:] = grid.zeros[3, 1]
        with np.errstate(invalid="ignore"):
            values = np.nan_to_num(grid.values())
    else:
        values = grid.values()
    model = product(grid, values)
    blocked_weights(model, options("ort"))
    assert model.graph.initializers["w_int4"].meta["edgeq.handling"] == "re-rounded"


def lookup(tied: bool, table: Floats, grid: Grid | None = None) -> ir.Model:
    b = Tiny()
    value = b.const("table", table)
    if grid is not None:
        set_rows(value, GridRows(grid))
    h = b.op("Gather", value, b.ids())
    outputs = [b.op("Neg", h)]
    if tied:
        outputs.append(b.op("MatMul", h, b.op("Transpose", value, perm=[1, 0])))
    shapes: list[list[int | str]] = [["batch", "tokens", 64], ["batch", "tokens", 32]]
    return b.done(*outputs, shapes=shapes[: len(outputs)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_rule_4(form: Form, symmetric: bool) -> None:
    table = normal(1, 32, 64)
    model = lookup(False, table)
    assert blocked_weights(model, options(form, Scheme(4, 32, symmetric))).tables == 1
    values = quantize_rows(table, Scheme(8, 32, symmetric)).values(64)
    assert error(run(model, ids=IDS), [-values[IDS]]) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied_bits", [4, 8])
def test_rule_5(form: Form, tied_bits: int) -> None:
    table = normal(1, 32, 64)
    model = lookup(True, table)
    result = blocked_weights(model, options(form, tied_bits=tied_bits))
    twice = form == "standard" and tied_bits == 4
    assert (result.linears, result.tables, result.stored_twice) == (1, 1, ["table"] if twice else [])
    weights = [value for value in model.graph.initializers.values() if value.const_value.nbytes >= 1000]  # type: ignore[union-attr]
    assert len(weights) == (2 if twice else 1)
    head = quantize_rows(table, Scheme(tied_bits, 32)).values(64)
    rows = quantize_rows(table, Scheme(8 if twice else tied_bits, 32)).values(64)[IDS]
    assert error(run(model, ids=IDS), [-rows, rows @ head.T]) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_tied_table_that_others_quantized(form: Form, offsets: bool, bits: int) -> None:
    grid = grid_of(32, 64, 32, bits, offsets=offsets)
    model = lookup(True, grid.values(), grid)
    assert blocked_weights(model, options(form)).tables == 1
    rows = grid.values()[IDS]
    assert error(run(model, ids=IDS), [-rows, rows @ grid.values().T]) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_of_an_older_opset_is_brought_to_what_the_blocks_need(form: Form) -> None:
    b = Tiny()
    weight = normal(1, 64, 32)
    y = b.op("MatMul", b.x("n", 64), b.const("w", weight))
    model = b.done(b.op("ReduceMean", y, axes=[-1]), shapes=[["n", 1]])
    assert blocked_weights(model, options(form)).linears == 1
    x = normal(2, 5, 64)
    expected = (x @ quantize_rows(weight.T, Scheme(4, 32)).values(64).T).mean(axis=-1, keepdims=True)
    assert error(run(model, x=x), [expected]) <= CLOSE
