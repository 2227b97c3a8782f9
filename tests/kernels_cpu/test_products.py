"""Integer products: exact integers on every instruction set, shapes of all kinds, agreement with ggml."""

import hashlib
import importlib
from concurrent.futures import ThreadPoolExecutor

import block_samples as samples
import ggml
import numpy as np
import plain_products as plain
import pytest
from plain_products import Weights

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import integer_dot, products, threads
from edgeq.kernels_cpu import isa as isas_of_cpus
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.products import blocked, layout
from edgeq.kernels_cpu.products.fields import Plane, Stored
from edgeq.kernels_cpu.products.interleave import interleave
from edgeq.kernels_cpu.products.layout import Format
from edgeq.kernels_cpu.products.panels import FEW_ROWS, SEGMENT
from edgeq.kernels_cpu.quantized_activations import Quantized, quantize

NAMES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
GGML = [importlib.import_module(f"edgeq.kernels_cpu.products.{name.lower()}").FORMAT for name in NAMES]
ONNX = [blocked.format_of(bits, block) for bits in (4, 8) for block in (16, 32, 128)]
ISAS = [instruction_set(), PORTABLE, Isa("wide", 512)]
names = pytest.mark.parametrize("name", NAMES)
formats = pytest.mark.parametrize("form", GGML + ONNX, ids=lambda form: form.name)
isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
rows_of_x = pytest.mark.parametrize("t", [1, 4])


def random_fields(form: Format, n: int, extreme: bool, seed: int) -> Weights:
    """n blocks with float scales of 1; ``extreme``: codes and scales at the ends of their ranges, and a block's
    codes all at one end, so that no sum could be larger."""
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.choice([low, high], shape) if extreme else rng.integers(low, high + 1, shape)

    subs = form.block // form.sub if form.sub else 0
    ends = (-128, 127) if form.signed_scales else (0, 63)
    has_second = form.correction in ("mins", "floats")
    ones = np.ones(n, np.float16 if form.halves else np.float32)
    codes = draw(0, (1 << sum(form.planes)) - 1, n, 1 if extreme else form.block)
    return Weights(
        np.broadcast_to(codes, (n, form.block)).astype(np.uint8),
        ones,
        draw(*ends, n, subs).astype(np.int16) if subs else None,
        draw(0, 63, n, subs).astype(np.int16) if form.correction == "mins" else None,
        0 * ones if has_second else None,
        draw(0, 15, n).astype(np.uint8) if form.correction == "zero points" else None,
    )


def quantized_rows(form: Format, t: int, extreme: bool, seed: int) -> Quantized:
    """One block of int8 over the range that ``quantize`` gives, −127 to 127, with scales of 1."""
    rng = np.random.default_rng(seed)
    random = rng.integers(-127, 128, (t, form.block)).astype(np.int8)
    ends = np.resize(np.array([-127, 127], np.int8), (t, 1))
    codes = np.repeat(ends, form.block, axis=1) if extreme else random
    if form.sub:
        words = codes.reshape(t, -1, form.sub).sum(axis=2, dtype=np.int16).view(np.int32)
    else:
        words = codes.sum(axis=1, dtype=np.int32, keepdims=True)
    if form.activation == "Q8_1":
        words = words.astype(np.float32).view(np.int32)
    return Quantized(codes, np.ones((t, 1), np.float32), words)


def packed_fields(form: Format, fields: Weights, n: int, isa: Isa) -> products.Packed:
    packed = products.empty(form, n, form.block, isa)
    assert len(packed.data) * packed.layout.rows == n
    stored = Stored((Plane(0, 8, 4),))  # a byte for each code
    interleave(packed.layout, stored, fields.codes.reshape(n, form.block), fields.fields, packed.data)
    packed.data.flags.writeable = False
    return packed


@pytest.mark.parametrize("form", GGML, ids=lambda form: form.name)
def test_extreme_operands_are_the_largest(form: Format):
    """The sums that the tests above and below ask for reach what a block can give."""
    weights, x = random_fields(form, 64, True, 1), quantized_rows(form, 2, True, 2)
    codes = weights.codes.astype(int) @ x.codes.astype(int).T
    top = (1 << sum(form.planes)) - 1
    assert (codes.min(), codes.max()) == (-127 * top * form.block, 127 * top * form.block)


@formats
@isas
@rows_of_x
@pytest.mark.parametrize("extreme", [False, True], ids=["random", "extreme"])
def test_integers_are_exact(form: Format, isa: Isa, t: int, extreme: bool):
    """With float scales of 1 and one block, the product is the integer itself, rounded once to float32."""
    n = 64
    fields, x = random_fields(form, n, extreme, 1), quantized_rows(form, t, extreme, 2)
    result = products.multiply(x, packed_fields(form, fields, n, isa))
    high, low = plain.integers(form, fields, x, n)
    assert np.array_equal(result, high[..., 0].astype(np.float32))
    if fields.second is not None:  # now what the second float is multiplied with
        swapped = fields._replace(d=0 * fields.d, second=1 + fields.second)
        result = products.multiply(x, packed_fields(form, swapped, n, isa))
        wanted = -low[..., 0] if form.correction == "mins" else x.words.view(np.float32)
        assert np.array_equal(result, np.broadcast_to(wanted, result.shape).astype(np.float32))


@formats
@pytest.mark.parametrize("takes", ["avx512vnni", "dotprod", "dotprod i8mm"])
@rows_of_x
def test_integers_are_exact_by_dot_products(
    form: Format, takes: str, t: int, monkeypatch: pytest.MonkeyPatch
):
    """What CPUs with a dot product instruction run, unsigned codes, signed ones and pairs of rows, with plain code
    in its place."""
    monkeypatch.setattr(integer_dot, "_DOTS", ())
    monkeypatch.setattr(integer_dot, "_MATRIX_DOTS", ())
    features = instruction_set().features - {"avx512vnni", "avxvnni", "dotprod", "i8mm"} | {
        *takes.split(),
        "emulated",
    }
    n, isa = 64, Isa(f"emulated {takes}", 256, features)
    for extreme in (False, True):
        fields, x = random_fields(form, n, extreme, 1), quantized_rows(form, t, extreme, 2)
        result = products.multiply(x, packed_fields(form, fields, n, isa))
        high, _ = plain.integers(form, fields, x, n)
        assert np.array_equal(result, high[..., 0].astype(np.float32))


@names
@isas
def test_codes_are_written_as_by_the_plain_twin(name: str, isa: Isa):
    """Every byte of every code, from encoded rows; the last panel is filled up."""
    n, columns = 45, 512
    rows = np.random.default_rng(7).integers(0, 256, (n, by_name(name).row_bytes(columns)), np.uint8)
    packed = products.pack(name, rows, columns, isa)
    layout, (panels, blocks, _) = packed.layout, packed.data.shape
    filled = np.concatenate([rows, np.zeros((panels * layout.rows - n, rows.shape[1]), np.uint8)])
    wanted = plain.interleaved_codes(layout, plain.weights(name, filled)[1].codes, panels, blocks)
    units = packed.data[:, :, : layout.units * layout.unit_bytes].reshape(*wanted.shape[:3], -1)
    assert np.array_equal(units[..., : layout.code_bytes], wanted)


def test_packed_bytes_are_those_of_the_version():
    """Where a layout changes on purpose, VERSION must be raised: packed weights are kept in files."""
    digest = hashlib.sha256()
    for name in NAMES:
        rows = np.random.default_rng(9).integers(0, 256, (35, by_name(name).row_bytes(512)), np.uint8)
        for isa in isas_of_cpus.ALL:
            digest.update(products.pack(name, rows, 512, isa).data.tobytes())
    assert (layout.VERSION, digest.hexdigest()[:16]) == (1, "595e56b2871d15d1")


def test_rows_in_another_order():
    rows = encoded_rows("Q4_K", 40, 512)
    order = np.random.default_rng(8).permutation(40)[:33]
    packed = products.pack("Q4_K", rows, 512, ISAS[0], order)
    assert packed.n == 33
    assert np.array_equal(packed.data, products.pack("Q4_K", rows[order], 512, ISAS[0]).data)


@formats
@isas
def test_layout_is_the_one_described(form: Format, isa: Isa):
    n = 32 if form.block > 128 else 64
    fields = random_fields(form, n, False, 3)
    fields = fields._replace(d=np.arange(n).astype(fields.d.dtype))
    packed = packed_fields(form, fields, n, isa)
    assert packed.data.ctypes.data % 64 == 0
    back = plain.unpack(packed.layout, packed.data)
    codes = fields.codes
    if form.levels and not packed.layout.looks_up:
        codes = (np.array(form.levels) + form.bias)[codes].astype(np.uint8)
    for got, wanted in zip(back, fields._replace(codes=codes), strict=True):
        if wanted is None:
            assert got is None
        else:
            assert np.array_equal(np.ravel(got), np.ravel(wanted))


def encoded_rows(name: str, n: int, columns: int) -> np.ndarray:
    values = np.random.default_rng(4).standard_normal((n, columns)).astype(np.float32)
    return by_name(name).encode(values)


def activations(t: int, columns: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((t, columns)).astype(np.float32)


def error(result: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(result - wanted) / np.linalg.norm(wanted))


@names
@isas
@pytest.mark.parametrize(("t", "n", "blocks"), [(1, 1, 1), (1, 37, 3), (2, 16, 8), (5, 33, 2), (9, 40, 5)])
def test_product_of_the_same_operands(name: str, isa: Isa, t: int, n: int, blocks: int):
    columns = blocks * by_name(name).block_values
    rows, x = encoded_rows(name, n, columns), activations(t, columns)
    form, fields = plain.weights(name, rows)
    result = products.product(x, products.pack(name, rows, columns, isa))
    assert result.shape == (t, n)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    quantized = plain.quantize(x, form.activation, form.block, form.sub or 0)
    assert error(result, plain.product(form, fields, quantized, n)) < 1e-5


@names
def test_product_is_near_that_of_floats(name: str):
    rows, x = encoded_rows(name, 200, 512), activations(6, 512)
    exact = x.astype(np.float64) @ by_name(name).decode(rows, 512).astype(np.float64).T
    assert error(products.product(x, products.pack(name, rows, 512, ISAS[0])), exact) < 0.012


@names
def test_many_segments(name: str):
    """More columns than are unpacked at a time, and no whole number of such segments."""
    columns = 2 * SEGMENT + 256
    rows = encoded_rows(name, 18, columns)
    form, fields = plain.weights(name, rows)
    for t in (FEW_ROWS, FEW_ROWS + 1):
        x = activations(t, columns)
        quantized = plain.quantize(x, form.activation, form.block, form.sub or 0)
        result = products.product(x, products.pack(name, rows, columns, ISAS[0]))
        assert error(result, plain.product(form, fields, quantized, 18)) < 1e-5


@names
def test_trained_weights(name: str):
    for values in samples.trained_rows().values():
        rows, x = by_name(name).encode(values[:40]), activations(2, values.shape[1])
        exact = x.astype(np.float64) @ by_name(name).decode(rows, values.shape[1]).astype(np.float64).T
        assert error(products.product(x, products.pack(name, rows, values.shape[1], ISAS[0])), exact) < 0.012


@names
@pytest.mark.parametrize("t", [1, 3])
def test_product_is_ggmls(name: str, t: int):
    rows, x = encoded_rows(name, 20, 1024), activations(t, 1024)
    result = products.product(x, products.pack(name, rows, 1024, ISAS[0]))
    assert error(result, ggml.product(name, x, rows)) < 1e-3


@pytest.mark.parametrize("kind", ["Q8_K", "Q8_0", "Q8_1"])
def test_activations_are_ggmls(kind: str):
    block = 256 if kind == "Q8_K" else 32
    fields = {
        "Q8_K": [("d", "<f4"), ("qs", "i1", 256), ("sums", "<i2", 16)],
        "Q8_0": [("d", "<f2"), ("qs", "i1", 32)],
        "Q8_1": [("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)],
    }[kind]
    for name, x in samples.float_rows().items():
        if name in ("subnormal floats", "smallest floats"):
            continue  # 127 / peak overflows: ggml's codes are undefined, ours 0
        ours = quantize(x, kind, block, 16 if kind == "Q8_K" else 0, len(x), ISAS[0])
        theirs = ggml.activations(kind, x).view(np.dtype(fields)).reshape(len(x), -1)
        assert np.array_equal(ours.codes, theirs["qs"].reshape(x.shape)), name
        assert np.array_equal(ours.scales, theirs["d"].astype(np.float32)), name
        if kind == "Q8_K":
            assert np.array_equal(ours.words.view(np.int16), theirs["sums"].reshape(len(x), -1)), name
        if kind == "Q8_1":
            assert np.array_equal(ours.words.view(np.float32), theirs["s"].astype(np.float32)), name


@isas
@pytest.mark.parametrize(
    ("kind", "block", "sub"),
    [
        ("Q8_K", 256, 16),
        ("Q8_K", 256, 32),
        ("Q8_0", 32, 0),
        ("Q8_1", 32, 0),
        ("blocked", 16, 0),
        ("blocked", 128, 0),
    ],
)
def test_activations_are_those_of_the_plain_twin(isa: Isa, kind: str, block: int, sub: int):
    rows = dict(samples.float_rows())
    rows["ties"] = np.tile(np.arange(-127, 129, dtype=np.float32) / 2, (2, 4))
    rows["both peaks"] = np.tile(np.float32([1, -1, 0.5, 0.25]), (2, 256))
    for value in (np.nan, np.inf, -np.inf):
        rows[f"{value}"] = rows["gauss"].copy()
        rows[f"{value}"][3, 300] = value
    for name, x in rows.items():
        ours, twin = quantize(x, kind, block, sub, len(x) + 2, isa), plain.quantize(x, kind, block, sub)
        assert ours.codes.min() >= -127  # products are exact for those
        for field, got, wanted in zip(Quantized._fields, ours, twin, strict=True):
            assert samples.same_bits(got[: len(x)], wanted) if got.dtype == np.float32 else np.array_equal(
                got[: len(x)], wanted) or field == "words", (name, field)  # fmt: skip
            assert not got[len(x) :].any()


@names
@isas
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@rows_of_x
def test_what_is_no_number_gives_nan_in_its_row_only(name: str, isa: Isa, value: float, t: int):
    rows, x = encoded_rows(name, 20, 512), activations(t, 512)
    packed = products.pack(name, rows, 512, isa)
    clean = products.product(x, packed)
    x[t - 1, 300] = value
    result = products.product(x, packed)
    assert np.isnan(result[t - 1]).all()
    assert np.array_equal(result[: t - 1], clean[: t - 1])


@names
def test_empty_operands_and_zeros(name: str):
    rows = encoded_rows(name, 4, 256)
    packed = products.pack(name, rows, 256, ISAS[0])
    assert products.product(np.empty((0, 256), np.float32), packed).shape == (0, 4)
    assert products.product(activations(2, 256), products.pack(name, rows[:0], 256, ISAS[0])).shape == (2, 0)
    no_columns = products.pack(name, rows[:, :0], 0, ISAS[0])
    assert not products.product(np.empty((2, 0), np.float32), no_columns).any()
    for t in (1, 2):
        assert not products.product(np.zeros((t, 256), np.float32), packed).any()
    zeros = by_name(name).encode(np.zeros((4, 256), np.float32))
    assert not products.product(activations(2, 256), products.pack(name, zeros, 256, ISAS[0])).any()


def test_strided_operands_and_bias():
    rows, x = encoded_rows("Q4_K", 40, 512), activations(6, 1024)
    packed = products.pack("Q4_K", rows, 512, ISAS[0])
    expected = products.product(np.ascontiguousarray(x[::2, ::2]), packed)
    assert np.array_equal(products.product(x[::2, ::2], packed), expected)
    every_second = products.pack("Q4_K", rows[::2], 512, ISAS[0])
    assert np.array_equal(products.product(x[::2, ::2], every_second), expected[:, ::2])
    bias = np.arange(40, dtype=np.float32)
    assert np.array_equal(products.product(x[::2, ::2], packed, bias), expected + bias)


def test_shapes_that_do_not_fit_are_refused():
    rows = encoded_rows("Q4_K", 4, 256)
    packed = products.pack("Q4_K", rows, 256, ISAS[0])
    with pytest.raises(EdgeqError, match=r"must be uint8 \[n, "):
        products.pack("Q4_K", rows, 512, ISAS[0])
    with pytest.raises(EdgeqError, match=r"activations must be \[T, 256\]"):
        products.product(activations(1, 512), packed)
    with pytest.raises(EdgeqError, match=r"activations must be \[T, 256\]"):
        products.product(np.zeros(256, np.float32), packed)
    with pytest.raises(EdgeqError, match=r"bias must be \[4\]"):
        products.product(activations(1, 256), packed, np.zeros(3, np.float32))
    with pytest.raises(EdgeqError, match="no integer product"):
        products.pack("F16", np.zeros((2, 64), np.uint8), 32, ISAS[0])


@isas
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", blocked.BLOCKS)
@pytest.mark.parametrize("with_zeros", [False, True])
def test_onnx_weights(isa: Isa, bits: int, block: int, with_zeros: bool):
    """Columns that are no whole number of blocks, and an odd number of zero points."""
    rng = np.random.default_rng(6)
    n, columns = 21, 3 * block - 5
    codes = rng.integers(0, 1 << bits, (n, 3, block), dtype=np.uint8)
    zeros = rng.integers(0, 1 << bits, (n, 4), dtype=np.uint8)
    if bits == 4:
        blob, packed_zeros = codes[..., ::2] | (codes[..., 1::2] << 4), zeros[:, ::2] | (zeros[:, 1::2] << 4)
    else:
        blob, packed_zeros = codes, zeros[:, :3]
    scales = rng.random((n, 3)).astype(np.float32)
    packed = products.pack_blocked(blob, scales, packed_zeros if with_zeros else None, columns, bits, isa)
    fields = Weights(
        codes, scales, zeros=zeros[:, :3] if with_zeros else np.full((n, 3), 1 << (bits - 1), np.uint8)
    )
    for t in (1, 3):
        x = activations(t, columns)
        quantized = plain.quantize(np.pad(x, ((0, 0), (0, 5))), "blocked", block, 0)
        wanted = plain.product(packed.layout.format, fields, quantized, n)
        assert error(products.product(x, packed), wanted) < 1e-5


@isas
@rows_of_x
def test_nan_with_onnx_weights(isa: Isa, t: int):
    blob, scales = np.full((20, 2, 16), 0x5A, np.uint8), np.ones((20, 2), np.float32)
    packed = products.pack_blocked(blob, scales, None, 64, 4, isa)
    x = activations(t, 64)
    clean = products.product(x, packed)
    x[t - 1, 40] = np.nan
    result = products.product(x, packed)
    assert np.isnan(result[t - 1]).all()
    assert np.array_equal(result[: t - 1], clean[: t - 1])


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "IQ4_NL"])
@isas
def test_weights_and_activations_at_any_address(name: str, isa: Isa):
    """No load asks for an alignment, and nothing is read beyond what a product may read."""
    rows, x = encoded_rows(name, 20, 256), activations(5, 256)
    packed = products.pack(name, rows, 256, isa)
    wanted = products.product(x, packed)
    memory = np.empty(packed.data.nbytes + 3, np.uint8)
    data = memory[3:].reshape(packed.data.shape)
    data[:] = packed.data
    data.flags.writeable = False
    shifted = np.empty(x.nbytes + 2, np.uint8)[2:].view(np.float32).reshape(x.shape)
    shifted[:] = x
    assert np.array_equal(products.product(shifted, packed._replace(data=data)), wanted)
    assert np.array_equal(
        products.product(shifted[:1], packed._replace(data=data))[0], products.product(x[:1], packed)[0]
    )


def test_onnx_weights_that_do_not_fit_are_refused():
    blob, scales = np.zeros((4, 2, 16), np.uint8), np.zeros((4, 2), np.float32)
    with pytest.raises(EdgeqError, match="blob must be"):
        products.pack_blocked(blob, scales, None, 65, 4, ISAS[0])
    with pytest.raises(EdgeqError, match="zero points"):
        products.pack_blocked(blob, scales, np.zeros((4, 2), np.uint8), 64, 4, ISAS[0])
    with pytest.raises(EdgeqError, match="no integer product"):
        products.pack_blocked(blob[..., :4], scales, None, 16, 4, ISAS[0])


def test_threads_change_nothing():
    """Ranges of panels on several threads, and several Python threads at once."""
    rows, before = encoded_rows("Q6_K", 600, 512), threads.get_threads()
    results = []
    try:
        for n in (1, 3):
            threads.set_threads(n)
            packed = products.pack("Q6_K", rows, 512, ISAS[0])
            for t in (1, 30):
                x = activations(t, 512)
                with ThreadPoolExecutor(4) as pool:
                    several = list(pool.map(products.product, [x] * 8, [packed] * 8))
                assert all(np.array_equal(one, several[0]) for one in several)
                results.append(several[0])
    finally:
        threads.set_threads(before)
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(results[1], results[3])
