"""The emulation of vpmaddubsw against NumPy, and against ONNX Runtime on a CPU that has nothing better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_graphs import node, proto, saved, small_cnn
from onnx_graphs import Floats, error, normal

import edgeq.onnx
from edgeq.devices.cpu import saturates_int8
from edgeq.formats.onnx.read import read_model
from edgeq.kernels_cpu.saturating import saturating_products
from edgeq.onnx import Request, quantize
from edgeq.onnx.saturation import emulate

DATA = [{"x": np.abs(normal(i, 8, 33))} for i in range(6)]


def plain_saturating(a: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(exact sums, saturated ones, how many pairs saturate)."""
    products = a[:, None, :].astype(np.int64) * w[None].astype(np.int64)
    even = products.shape[-1] // 2 * 2
    pairs = products[..., :even].reshape(*products.shape[:2], -1, 2).sum(axis=-1)
    kept = np.clip(pairs, -(2**15), 2**15 - 1)
    return (
        products.sum(axis=-1),
        kept.sum(axis=-1) + products[..., even:].sum(axis=-1),
        int((kept != pairs).sum()),
    )


@pytest.mark.parametrize("depth", [1, 8, 33])
def test_the_kernel(depth: int) -> None:
    random = np.random.default_rng(depth)
    a = random.integers(0, 256, (5, depth)).astype(np.uint8)
    w = random.integers(-127, 128, (7, depth)).astype(np.int8)
    exact, saturated = np.empty((5, 7), np.int32), np.empty((5, 7), np.int32)
    count = saturating_products(a, w, exact, saturated)
    expected = plain_saturating(a, w)
    np.testing.assert_array_equal(exact, expected[0])
    np.testing.assert_array_equal(saturated, expected[1])
    assert count == expected[2]
    assert (count > 0) == (depth > 1)


def heavy(folder: Path) -> Path:
    """Two linear layers whose weights all lie near the largest, with inputs of one sign: pairs saturate."""
    constants: dict[str, Floats] = {
        "w1": np.float32(1) + normal(1, 33, 24, size=0.05),
        "w2": np.float32(1) + normal(2, 24, 10, size=0.05),
        "b": normal(3, 10),
    }
    nodes = [
        node("MatMul", ["x", "w1"], ["h"], name="first"),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w2", "b"], ["y"], name="second"),
    ]
    return saved(proto(nodes, {"x": ["n", 33]}, {"y": 2}, constants), folder / "heavy.onnx")


@pytest.mark.parametrize("quant", ["int8", "int8-dynamic"])
def test_full_range_saturates_and_the_default_does_not(quant: str, tmp_path: Path) -> None:
    source = heavy(tmp_path)
    shares, closeness = [], []
    for full in (False, True):
        request = Request(source, tmp_path / "q.onnx", quant, DATA, full_range=full, proof=False, force=True)
        path = Path(quantize(request)["files"][0])
        found = emulate(read_model(path), DATA, tmp_path)
        assert len(found["products"]) == 2 * full
        shares.append([one["saturated"] for one in found["products"]])
        closeness.append(found["closeness"])
        assert all((one["relative_error"] > 0) == (one["saturated"] > 0) for one in found["products"])
    assert closeness[0] == 1
    assert min(shares[1]) > 0.01
    assert closeness[1] < 0.999


@pytest.mark.skipif(not saturates_int8(), reason="this CPU sums in 32 bits")
@pytest.mark.parametrize("quant", ["int8", "int8-dynamic"])
def test_the_runtime_here_answers_as_emulated(quant: str, tmp_path: Path) -> None:
    request = Request(heavy(tmp_path), tmp_path / "q.onnx", quant, DATA, full_range=True, proof=False)
    path = Path(quantize(request)["files"][0])
    found = emulate(read_model(path), DATA, tmp_path)
    exact = edgeq.onnx.session(tmp_path / "heavy.onnx")
    here = edgeq.onnx.session(path)
    errors = [error(here.run(None, feeds), exact.run(None, feeds)) for feeds in DATA]
    assert min(errors) > 0.01
    # The outputs lie near one direction: 1 - closeness is half of the squared relative error.
    a, b = (np.concatenate([one.run(None, feeds)[0] for feeds in DATA]) for one in (here, exact))
    relative = np.square(a - b).sum() / np.square(b).sum() / 2
    assert 1 - found["closeness"] == pytest.approx(relative, rel=0.2)


@pytest.mark.parametrize("isa", ["generic", "avx512-vnni"])
def test_the_proof_says_it(isa: str, tmp_path: Path) -> None:
    record = quantize(
        Request(heavy(tmp_path), tmp_path, "int8", DATA, isa=isa, min_cosine=0.5, allow_slower=True)
    )
    saturates = isa != "generic"
    assert bool(record["proof"]["saturation"]["products"]) == saturates
    assert any("on x86 without VNNI 2 products saturate" in note for note in record["notes"]) == saturates


def test_convolutions_are_computed_apart(tmp_path: Path) -> None:
    data = [{"x": np.abs(normal(i, 2, 3, 12, 12))} for i in range(4)]
    source = saved(small_cnn(), tmp_path / "cnn.onnx")
    request = Request(source, tmp_path / "q.onnx", "int8", data, full_range=True, proof=False)
    found = emulate(read_model(Path(quantize(request)["files"][0])), data, tmp_path)
    assert len(found["products"]) == 3  # the depthwise one is summed in 32 bits
    assert found["closeness"] is None


def test_a_graph_without_products(tmp_path: Path) -> None:
    assert emulate(read_model(heavy(tmp_path)), DATA, tmp_path) == {"products": [], "closeness": 1.0}
