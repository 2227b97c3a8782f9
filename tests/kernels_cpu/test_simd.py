"""Every vector operation against NumPy, at several widths: LLVM splits what the CPU does not hold."""

import numpy as np
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.jit import kernel

isas = pytest.mark.parametrize(
    "isa", [instruction_set(), PORTABLE, Isa("wide", 512)], ids=lambda isa: f"{isa.name}-{isa.vector_bits}"
)
N = 64
SPECIAL = [
    0.0,
    -0.0,
    0.5,
    1.5,
    2.5,
    -0.5,
    -2.5,
    1e-42,
    65504.0,
    65520.0,
    1e30,
    -1e30,
    np.inf,
    -np.inf,
    np.nan,
    6e-8,
]


def floats(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(N) * 3
    values[: len(SPECIAL)] = np.roll(SPECIAL, seed * 5)
    return values.astype(np.float32)


def integers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(1 << 31), 1 << 31, N).astype(np.int32)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, any NaN like any other."""
    if a.dtype != np.float32:
        return bool((a == b).all())
    return bool(((a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b))).all())


@kernel
def float_operations(isa, a, b, c, out):
    for i in range(0, a.size, simd.lanes_of(isa)):
        x, y = simd.load(isa, simd.address(a) + 4 * i), simd.load(isa, simd.address(b) + 4 * i)
        z = simd.load(isa, simd.address(c) + 4 * i)
        results = (x + y, x - y, x * y, x / y, -x, abs(x), simd.minimum(x, y), simd.maximum(x, y))
        more = (simd.sqrt(abs(x)), simd.fma(x, y, z), x * y + z, 2 * x - 1, simd.splat(isa, np.float32(0.1)))
        for k, result in enumerate(results):
            simd.store(simd.address(out[k]) + 4 * i, result)
        for k, result in enumerate(more):
            simd.store(simd.address(out[8 + k]) + 4 * i, result)


@isas
def test_float_operations(isa: Isa):
    a, b, c = floats(0), floats(1), floats(2)
    out = np.empty((13, N), np.float32)
    float_operations(isa, a, b, c, out)
    with np.errstate(all="ignore"):
        fused = (a.astype(np.float64) * b + c).astype(np.float32)
        expected = [a + b, a - b, a * b, a / b, -a, np.abs(a), np.where(a < b, a, b), np.where(a > b, a, b)]
        expected += [np.sqrt(np.abs(a)), fused, a * b + c, 2 * a - 1, np.full(N, 0.1, np.float32)]
    for k, want in enumerate(expected):
        assert same(out[k], np.asarray(want, np.float32)), k


@kernel
def comparisons(isa, a, b, out):
    for i in range(0, a.size, simd.lanes_of(isa)):
        x, y = simd.load(isa, simd.address(a) + 4 * i), simd.load(isa, simd.address(b) + 4 * i)
        masks = (x < y, x <= y, x > y, x >= y, x == y, x != y, (x < y) & (x < 0), (x < y) | (x < 0), ~(x < y))
        for k, mask in enumerate(masks):
            simd.store(simd.address(out[k]) + 4 * i, simd.select(mask, x, y))


@isas
def test_comparisons_and_select(isa: Isa):
    a, b = floats(0), floats(1)
    b[20:30] = a[20:30]
    out = np.empty((9, N), np.float32)
    comparisons(isa, a, b, out)
    with np.errstate(invalid="ignore"):
        less = a < b
        masks = [less, a <= b, a > b, a >= b, a == b, a != b, less & (a < 0), less | (a < 0), ~less]
    for k, mask in enumerate(masks):
        assert same(out[k], np.where(mask, a, b)), k


@kernel
def integer_operations(isa, a, b, out):
    for i in range(0, a.size, simd.lanes_of(isa)):
        x, y = simd.load_int32(isa, simd.address(a) + 4 * i), simd.load_int32(isa, simd.address(b) + 4 * i)
        results = (x + y, x - y, x * y, x & y, x | y, x ^ y, x << 3, x >> 3, -x)
        more = (simd.minimum(x, y), simd.maximum(x, 7), x & 0xFF, simd.select(x > y, x, y), abs(x), ~x)
        for k, result in enumerate(results):
            simd.store(simd.address(out[k]) + 4 * i, result)
        for k, result in enumerate(more):
            simd.store(simd.address(out[9 + k]) + 4 * i, result)


@isas
def test_integer_operations(isa: Isa):
    a, b = integers(0), integers(1)
    out = np.empty((15, N), np.int32)
    integer_operations(isa, a, b, out)
    expected = [a + b, a - b, a * b, a & b, a | b, a ^ b, a << 3, a >> 3, -a, np.minimum(a, b)]
    expected += [np.maximum(a, 7), a & 0xFF, np.maximum(a, b), np.abs(a), ~a]
    for k, want in enumerate(expected):
        assert same(out[k], want), k


@kernel
def conversions(isa, a, b, small, out):
    for i in range(0, a.size, simd.lanes_of(isa)):
        x, n = simd.load(isa, simd.address(a) + 4 * i), simd.load_int32(isa, simd.address(b) + 4 * i)
        tame = simd.select(abs(x) < 1000, x, 0)
        results = (simd.nearest(x), simd.to_int32(tame), simd.as_int32(x), simd.as_int32(simd.to_float(n)))
        at = simd.address(small) + i
        more = (simd.to_int32(simd.load_int8(isa, at)), simd.to_int32(simd.load_uint8(isa, at)), n)
        for k, result in enumerate(results):
            simd.store(simd.address(out[k]) + 4 * i, result)
        for k, result in enumerate(more):
            simd.store(simd.address(out[4 + k]) + 4 * i, result)
        simd.store(at, simd.to_uint8(n))


@isas
def test_conversions(isa: Isa):
    a, b = floats(0), integers(1)
    bytes_ = np.arange(200, 200 + N).astype(np.uint8)
    small, out = bytes_.copy(), np.empty((7, N), np.int32)
    conversions(isa, a, b, small, out)
    with np.errstate(invalid="ignore"):
        nearest = ((a + np.float32(12582912)).view(np.int32) & 0x7FFFFF) - 0x400000
        expected = [nearest, np.where(np.abs(a) < 1000, a, 0).astype(np.int32), a.view(np.int32)]
    expected += [
        b.astype(np.float32).view(np.int32),
        bytes_.view(np.int8).astype(np.int32),
        bytes_.astype(np.int32),
        b,
    ]
    for k, want in enumerate(expected):
        finite = ~np.isnan(a) if k in (0, 2) else np.ones(N, bool)
        assert same(out[k][finite], want[finite]), k
    assert (small == b.astype(np.uint8)).all()


@kernel
def halves(isa, a, out, back):
    for i in range(0, a.size, simd.lanes_of(isa)):
        bits = to_half(isa, simd.load(isa, simd.address(a) + 4 * i))
        simd.store(simd.address(out) + 2 * i, simd.to_int16(bits))
        simd.store(simd.address(back) + 4 * i, from_half(isa, bits))


@isas
def test_half_precision_is_exact(isa: Isa):
    """Every float16, the floats half way between neighbours, and those just beside."""
    with np.errstate(all="ignore"):
        every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
        middle = (every + np.roll(every, 1)) / 2
        a = np.concatenate(
            [every, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), floats(0)]
        )
        a = a.astype(np.float32)
        out, back = np.empty(a.size, np.int16), np.empty_like(a)
        halves(isa, a, out, back)
        expected = a.astype(np.float16)
        number = ~np.isnan(a)
        assert (out[number] == expected.view(np.int16)[number]).all()
        assert same(back, expected.astype(np.float32))


@kernel
def reductions(isa, a, b, out):
    x, n = simd.load(isa, simd.address(a)), simd.load_int32(isa, simd.address(b))
    out[0], out[1], out[2] = simd.max_of(x), simd.min_of(x), simd.lane(x, 1)
    out[3] = simd.sum_of(simd.to_float(n))
    out[4] = simd.mask_bits(x > 3)
    return simd.sum_of(n), simd.any_of(x > 3), simd.all_of(x > -9), simd.any_of(x > 9), simd.all_of(x > 0)


@isas
def test_reductions(isa: Isa):
    a = np.random.default_rng(0).permutation(np.linspace(-8, 8, N)).astype(np.float32)
    b = np.arange(-3, N - 3).astype(np.int32)
    lanes = isa.float_lanes
    a[:lanes][0], a[1] = 3.5, -2
    out = np.empty(5, np.float32)
    flags = reductions(isa, a, b, out)
    mask = sum(1 << i for i in range(lanes) if a[i] > 3)
    assert out.tolist() == [a[:lanes].max(), a[:lanes].min(), -2, b[:lanes].sum(), mask]
    assert flags == (b[:lanes].sum(), True, True, False, False)


@kernel
def transposed(isa, rows, out):
    addresses = np.empty(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        addresses[i] = simd.address(rows) + 4 * i * rows.shape[1]
    simd.transpose(isa, simd.address(addresses), 8, simd.address(out), 4 * out.shape[1])
    return addresses[0]  # keeps it alive


@isas
def test_transpose(isa: Isa):
    n = isa.float_lanes
    rows = np.arange(n * (n + 3), dtype=np.float32).reshape(n, n + 3)
    out = np.zeros((n, n + 1), np.float32)
    transposed(isa, rows, out)
    assert (out[:, :n] == rows[:, 2 : 2 + n].T).all()
    assert not out[:, n].any()


@kernel
def shapes(isa):
    return simd.lanes_of(isa), simd.lanes_of(simd.resized(isa, 8)), simd.lanes_of(simd.widened(isa, 2))


@isas
def test_shapes(isa: Isa):
    assert shapes(isa) == (isa.float_lanes, 8, 2 * isa.float_lanes)


@kernel
def lanes_and_bits(isa, wanted, numbers, bits):
    simd.prefetch(simd.address(wanted) + (1 << 30))  # not ours, and must not matter
    for start in range(0, wanted.size, simd.lanes_of(isa)):
        found = simd.load_int32(isa, simd.address(wanted) + 4 * start)
        simd.store(simd.address(numbers) + 4 * start, simd.lane_numbers(isa))
        bits[start // simd.lanes_of(isa)] = simd.first_bit(simd.mask_bits(found != 0))


@isas
def test_lane_numbers_and_first_bit(isa: Isa):
    lanes = isa.float_lanes
    wanted = np.zeros((N // lanes, lanes), np.int32)
    wanted[1:, 2:] = np.random.default_rng(3).integers(0, 2, (N // lanes - 1, lanes - 2))
    numbers, bits = np.empty(N, np.int32), np.empty(N // lanes, np.int64)
    lanes_and_bits(isa, wanted.reshape(-1), numbers, bits)
    assert (numbers == np.tile(np.arange(lanes), N // lanes)).all()
    assert bits.tolist() == [int(row.argmax()) if row.any() else 64 for row in wanted]
