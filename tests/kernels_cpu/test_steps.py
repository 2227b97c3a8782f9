"""Each step against NumPy, by its address and words, as a program calls it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import naive
import numpy as np
import plain_products
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import products, threads
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.steps import (
    activations,
    address_of,
    elementwise,
    experts,
    float_product,
    norm,
    product,
    rope,
    rows,
)
from edgeq.kernels_cpu.steps.executor import CALL, COUNTERS, execute

ISAS = [PORTABLE, instruction_set()]
EVERY_ISA = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
STEP = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4, ctypes.c_void_p)
T, WIDTH, ROOM = 5, 37, 64  # an odd width: no whole number of vectors


def call(kernel: object, kind: object, first: int, last: int, words: list[object]) -> None:
    """Run items first..last; arrays among the words stand for their addresses."""
    packed = np.zeros(len(words), np.int64)
    for i, word in enumerate(words):
        if isinstance(word, float):
            packed[i : i + 1].view(np.float32)[0] = word
        else:
            packed[i] = word.ctypes.data if isinstance(word, np.ndarray) else word
    scratch = np.zeros(1 << 17, np.uint8)
    STEP(address_of(kernel, kind))(first, last, packed.ctypes.data, scratch.ctypes.data, None)


def made(rows_: int = T, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Floats in rows that have room behind them, NaN there: it may be read, but must not show."""
    x = np.full((rows_, -(-width // ROOM) * ROOM), np.nan, np.float32)
    x[:, :width] = np.random.default_rng(seed).standard_normal((rows_, width))
    return x


def out_like(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 77)


@EVERY_ISA
@pytest.mark.parametrize(("which", "twin"), [(elementwise.ADD, np.add), (elementwise.MUL, np.multiply)])
def test_combine(isa: Isa, which: int, twin: Callable[..., np.ndarray]) -> None:
    a, b = made(), made(seed=1)
    out = out_like(a)
    call(elementwise.combine, isa, 1, 4, [which, WIDTH, a, b, out, *[a.strides[0]] * 3])
    assert np.array_equal(out[1:4, :WIDTH], twin(a, b)[1:4, :WIDTH])
    assert (out[[0, 4]] == 77).all()


TRANSFORMS = {
    "scale": (elementwise.SCALE, lambda x: x * np.float32(0.3)),
    "silu": (elementwise.SILU, lambda x: x / (1 + np.exp(-x))),
    "gelu": (elementwise.GELU, naive.gelu),
    "gelu_tanh": (
        elementwise.GELU_TANH,
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "relu": (elementwise.RELU, lambda x: np.maximum(x, 0)),
    "tanh": (elementwise.TANH, np.tanh),
}


@EVERY_ISA
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(isa: Isa, name: str) -> None:
    which, twin = TRANSFORMS[name]
    x = made() * np.float32(4)
    x[0, :6] = [0, 60, -60, 1e-30, -9, 9]
    out = out_like(x)
    call(elementwise.transform, isa, 0, T, [which, WIDTH, x, out, x.strides[0], out.strides[0], 0.3])
    expected = twin(x[:, :WIDTH].astype(np.float64 if name != "scale" else np.float32))
    np.testing.assert_allclose(out[:, :WIDTH], expected, rtol=1e-5, atol=1e-6)


@EVERY_ISA
def test_transforms_keep_nan(isa: Isa) -> None:
    x = made()
    x[2, 3] = np.nan
    for which, _ in TRANSFORMS.values():
        out = out_like(x)
        call(elementwise.transform, isa, 0, T, [which, WIDTH, x, out, x.strides[0], out.strides[0], 0.3])
        assert np.isnan(out[2, 3])
        assert np.isnan(out[:, :WIDTH]).sum() == 1


@EVERY_ISA
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_normalise(isa: Isa, centred: bool, heads: int) -> None:
    x, weight, bias = made(width=heads * WIDTH), made(1, seed=1)[0], made(1, seed=2)[0]
    out = out_like(x)
    words = [x, out, x.strides[0], out.strides[0], heads, WIDTH, weight, bias if centred else 0]
    call(norm.normalise, isa, 0, T, [*words, int(centred), 1e-5])
    each = x[:, : heads * WIDTH].reshape(T, heads, WIDTH).astype(np.float64)
    each = each - each.mean(axis=2, keepdims=True) * centred
    expected = each / np.sqrt(np.square(each).mean(axis=2, keepdims=True) + 1e-5) * weight[:WIDTH]
    expected = expected + bias[:WIDTH] * centred
    np.testing.assert_allclose(
        out[:, : heads * WIDTH].reshape(expected.shape), expected, rtol=1e-5, atol=1e-6
    )
    assert (out[:, heads * WIDTH :] == 77).all()


@EVERY_ISA
def test_rope(isa: Isa) -> None:
    heads, width, half, start = 3, 30, 11, 100
    frequencies = (10000.0 ** -(np.arange(half) / half)).astype(np.float32)
    state = np.array([T, start, 0, frequencies.ctypes.data])
    angles, x = made(width=2 * half), made(width=heads * width)
    out = out_like(x)
    call(rope.angles, isa, 0, T, [state, 3, half, angles, angles.strides[0], 1.5])
    strides = [x.strides[0], out.strides[0], angles.strides[0]]
    call(rope.rotate, isa, 0, T, [x, out, angles, *strides, heads, width, half])
    turned = np.outer(np.arange(start, start + T), frequencies)[:, None, :]
    parts = x[:, : heads * width].reshape(T, heads, width)
    low, high, rest = np.split(parts, [half, 2 * half], axis=2)
    cos, sin = 1.5 * np.cos(turned), 1.5 * np.sin(turned)
    expected = np.concatenate([low * cos - high * sin, high * cos + low * sin, rest], axis=2)
    np.testing.assert_allclose(out[:, : heads * width].reshape(parts.shape), expected, rtol=1e-4, atol=2e-5)


def test_last_row() -> None:
    x, out = made(), np.zeros(WIDTH, np.float32)
    call(rows.last_row, PORTABLE, 0, 1, [np.array([4, 0, 0]), x, x.strides[0], out, WIDTH])
    assert np.array_equal(out, x[3, :WIDTH])


def quantized(isa: Isa, x: np.ndarray, packed: products.Packed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by the step, compared with the plain twin."""
    form, columns = packed.layout.format, packed.columns
    sub = form.sub or 0
    codes, scales = (
        np.zeros((len(x), columns), np.int8),
        np.zeros((len(x), columns // form.block), np.float32),
    )
    sums = np.zeros((len(x), columns // (2 * sub) if sub else scales.shape[1]), np.int32)
    words = [
        x,
        x.strides[0],
        columns,
        codes,
        scales,
        sums,
        form.block,
        sub,
        activations.FLAGS[form.activation],
    ]
    call(activations.quantize, isa, 0, len(x), words)
    expected = plain_products.quantize(x[:, :columns].copy(), form.activation, form.block, sub)
    for found, plain in zip((codes, scales, sums), expected, strict=True):
        assert np.array_equal(found, plain)
    return codes, scales, sums


def multiplied(
    kernel: object, packed: products.Packed, x: np.ndarray, arranged: bool, last: int, routes: list[object]
) -> np.ndarray:
    """Items 0..last of a product's step, added to rows that are given back, too; ``routes`` are its last words."""
    isa = packed.isa
    codes, scales, sums = quantized(isa, x, packed)
    block, per_block = packed.layout.format.block, sums.shape[1] // scales.shape[1]
    if arranged:
        size = products.tiles.operand_parts(packed.layout)
        own = [codes, scales, sums]
        codes, scales, sums = (
            np.zeros((len(x), packed.columns), f"i{size}"),
            np.zeros_like(scales),
            np.zeros_like(sums),
        )
        words = [*own, scales.shape[1], block, per_block, size, codes, scales, sums]
        call(activations.arrange, isa, 0, len(x), words)
    base, out = made(len(x), packed.n, seed=2), np.zeros((len(x), ROOM), np.float32)
    _, blocks, block_bytes = packed.data.shape
    words = [packed.data, blocks, block_bytes, packed.layout.rows, codes, scales, sums, block, per_block]
    words += [out, out.strides[0], base, base.strides[0], *routes]
    call(kernel, packed.layout, 0, last, words)
    return out[:, : packed.n] - base[:, : packed.n]


@EVERY_ISA
@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
@pytest.mark.parametrize("t", [1, 7])
def test_product(isa: Isa, name: str, t: int) -> None:
    n, columns = 40, 512
    weights = by_name(name).encode(made(n, columns, seed=1)[:, :columns].copy())
    packed = products.pack(name, weights, columns, isa)
    x = made(-(-t // 4) * 4 if t > 1 else 1, columns)
    kernel = product.product_of_row if t == 1 else product.product_of_rows
    found = multiplied(kernel, packed, x, t > 1, len(packed.data), [np.array([t, 0, 0])])
    np.testing.assert_allclose(found[:t], products.product(x[:t], packed), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("arranged", [False, True])
def test_every_row_meets_its_expert(arranged: bool) -> None:
    """Rows sorted by expert, one of which has none, each expert's a whole number of tiles; and rows in any order."""
    n_experts, n, columns, isa = 4, 20, 512, instruction_set()  # n fills no whole number of panels
    weights = by_name("Q4_K").encode(made(n_experts * n, columns, seed=1)[:, :columns].copy())
    packed = products.pack("Q4_K", weights, columns, isa, stacked=n_experts)
    sent = np.repeat([0, 2, 3], 4) if arranged else np.array([3, 0, 2, 0])
    x, panels = made(len(sent), columns), len(packed.data) // n_experts
    begins = (
        np.searchsorted(sent, np.arange(n_experts + 1)) if arranged else np.zeros(n_experts + 1, np.int64)
    )
    table = np.concatenate([begins, np.stack([np.arange(len(sent)), sent], axis=1).reshape(-1)])
    kernel = product.expert_of_rows if arranged else product.expert_of_row
    items = (n_experts if arranged else len(sent)) * panels
    found = multiplied(kernel, packed, x, arranged, items, [table, n_experts, panels])
    for row, expert in enumerate(sent):
        alone = products.product(x[row : row + 1], packed.matrix(expert))[0]
        np.testing.assert_allclose(found[row], alone, rtol=1e-5, atol=1e-4)


def test_one_of_a_stack_is_that_matrix() -> None:
    encoded = by_name("Q4_K").encode(made(60, 512, seed=1)[:, :512].copy())
    packed = products.pack("Q4_K", encoded, 512, instruction_set(), stacked=3)
    alone = products.pack("Q4_K", encoded[40:], 512, instruction_set())
    assert np.array_equal(packed.matrix(2).data, alone.data)
    with pytest.raises(EdgeqError, match="3 matrices are stacked"):
        products.product(made(1, 512), packed)
    with pytest.raises(EdgeqError, match="not 7 matrices"):
        products.pack("Q4_K", encoded, 512, instruction_set(), stacked=7)


@EVERY_ISA
@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("columns", [37, 1100])
def test_float_product(isa: Isa, name: str, columns: int) -> None:
    n, t = 21, 5
    encoded = by_name(name).encode(made(n, columns, seed=1)[:, :columns].copy())
    decoded = by_name(name).decode(encoded, columns).astype(np.float64)
    x, bias = made(6, columns), made(1, n, seed=3)[0]
    kind = float_product.FloatWeights(name, isa)
    for count, kernel, items in (
        (1, float_product.product_of_row, n),
        (t, float_product.product_of_rows, -(-n // float_product.GROUP)),
    ):
        out = np.zeros((6, ROOM), np.float32)
        words = [encoded, columns, n, x, x.strides[0], out, out.strides[0], bias, 0, np.array([count, 0, 0])]
        call(kernel, kind, 0, items, words)
        expected = x[:count, :columns] @ decoded.T + bias[:n]
        np.testing.assert_allclose(out[:count, :n], expected, rtol=1e-5, atol=1e-4)


def test_experts() -> None:
    """Routes, and rows gathered and combined by a table in which each expert's rows are whole tiles."""
    n_experts, used, multiple = 4, 2, 4
    scores = made(T, n_experts) * np.float32(3)
    routed = np.zeros((T, n_experts), np.float32)
    strides = [scores.strides[0], routed.strides[0]]
    call(experts.route, PORTABLE, 0, T, [scores, routed, *strides, n_experts, used, 1])
    weights = np.exp(scores[:, :n_experts].astype(np.float64))
    weights[weights < np.sort(weights, axis=1)[:, -used, None]] = 0
    np.testing.assert_allclose(routed, weights / weights.sum(axis=1, keepdims=True), rtol=1e-5)

    most = T * used + n_experts * (multiple - 1)
    table = np.zeros(n_experts + 1 + 2 * most + T * used, np.int64)
    state = np.array([T, 0, 0])
    words = [state, routed, routed.strides[0], table, n_experts, used, most, multiple]
    call(experts.sort, PORTABLE, 0, 1, words)
    begins, pairs = table[: n_experts + 1], table[n_experts + 1 :][: 2 * most].reshape(-1, 2)
    assert (begins % multiple == 0).all()
    for e in range(n_experts):
        mine = pairs[begins[e] : begins[e + 1], 0]
        assert mine[mine >= 0].tolist() == np.flatnonzero(routed[:, e]).tolist()

    x, own = made(), np.full((most, ROOM), np.nan, np.float32)
    words = [x, own, x.strides[0], own.strides[0], WIDTH, table, n_experts]
    call(experts.gather, PORTABLE, 0, int(begins[-1]), words)
    for e in range(n_experts):
        own[begins[e] : begins[e + 1]] *= e + 1  # as if each expert multiplied by its number
    out = out_like(x)
    strides = [own.strides[0], out.strides[0], routed.strides[0]]
    words = [own, out, routed, *strides, WIDTH, table, n_experts, used, most]
    call(experts.combine, PORTABLE, 0, T, words)
    expected = x[:, :WIDTH] * (routed @ np.arange(1, n_experts + 1))[:, None]
    np.testing.assert_allclose(out[:, :WIDTH], expected, rtol=1e-5)


def test_executor_runs_phases_in_order_and_chunks_once() -> None:
    """Chained sums, x ← x + 1 a thousand times, in chunks of a row: any chunk twice or too early would show."""
    phases, n_rows = 1000, 8
    x = np.zeros((2, n_rows, ROOM), np.float32)
    one = np.ones((n_rows, ROOM), np.float32)
    function = address_of(elementwise.combine, PORTABLE)
    words = np.array(
        [[elementwise.ADD, ROOM, x[i].ctypes.data, one.ctypes.data, x[1 - i].ctypes.data, *[4 * ROOM] * 3]
         for i in (0, 1)]
    )  # fmt: skip
    limit = np.array([6])  # two rows are not there
    calls = np.array(
        [[function, words[i % 2].ctypes.data, row, row + 1, limit.ctypes.data]
         for i in range(phases) for row in range(n_rows)]
    )  # fmt: skip
    assert calls.shape[1] == CALL
    chunks = np.arange(phases * n_rows)[:, None] + [0, 1]
    firsts = np.stack([np.arange(0, phases * n_rows, n_rows), np.full(phases, n_rows)], axis=1)
    counters = np.zeros(COUNTERS * phases, np.int64)
    tables = [firsts, np.ascontiguousarray(chunks), calls, counters]
    scratch = np.zeros(3 * 64, np.uint8)
    program = np.array([phases, *(t.ctypes.data for t in tables), scratch.ctypes.data, 64, 0])
    for n in (1, 2, 3):
        x[:], counters[:] = 0, 0
        threads.together(n, execute, np.int64(program.ctypes.data))
        assert (x[phases % 2, :6] == phases).all()
        assert (x[:, 6:] == 0).all()
