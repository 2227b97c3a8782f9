"""Products with encoded weights against a float64 product with the decoded ones."""

from pathlib import Path

import block_samples as samples
import numpy as np
import pytest

from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu.matmul import BLAS_ROWS, matmul

types = pytest.mark.parametrize("block_type", all_types(), ids=lambda t: t.name)


def weights_of(block_type: type[BlockType], n: int, columns: int) -> np.ndarray:
    if not block_type.encodes:
        blocks = samples.random_blocks(block_type, n * columns // block_type.block_values)
        return blocks.reshape(n, -1)
    values = np.random.default_rng(1).standard_normal((n, columns)).astype(np.float32)
    return block_type.encode(values)


def activations(t: int, columns: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((t, columns)).astype(np.float32)


def relative_error(
    block_type: type[BlockType], product: np.ndarray, x: np.ndarray, rows: np.ndarray
) -> float:
    exact = x.astype(np.float64) @ block_type.decode(rows, x.shape[1]).astype(np.float64).T
    return float(np.linalg.norm(product - exact) / np.linalg.norm(exact))


@types
@pytest.mark.parametrize("t", [1, 3, BLAS_ROWS - 1, BLAS_ROWS, 65])
def test_product(block_type: type[BlockType], t: int):
    rows, x = weights_of(block_type, 700, 1024), activations(t, 1024)
    product = matmul(x, rows, block_type.name)
    assert product.dtype == np.float32
    assert product.shape == (t, 700)
    assert relative_error(block_type, product, x, rows) < 1e-5


@types
def test_bias(block_type: type[BlockType]):
    rows, x = weights_of(block_type, 8, 256), activations(2, 256)
    bias = np.arange(8, dtype=np.float32)
    assert np.array_equal(matmul(x, rows, block_type.name, bias), matmul(x, rows, block_type.name) + bias)


@types
def test_memory_mapped_and_strided_operands(block_type: type[BlockType], tmp_path: Path):
    rows, x = weights_of(block_type, 40, 512), activations(2, 1024)[:, ::2]
    (tmp_path / "weights").write_bytes(b"x" * 32 + rows.tobytes())
    mapped = np.memmap(tmp_path / "weights", np.uint8, "r", offset=32, shape=rows.shape)
    expected = matmul(np.ascontiguousarray(x), rows, block_type.name)
    assert np.array_equal(matmul(x, mapped, block_type.name), expected)
    assert np.allclose(matmul(x, mapped[::2], block_type.name), expected[:, ::2], rtol=1e-5, atol=1e-4)


@types
def test_empty_operands(block_type: type[BlockType]):
    rows = weights_of(block_type, 4, 256)
    assert matmul(np.empty((0, 256), np.float32), rows, block_type.name).shape == (0, 4)
    assert matmul(activations(2, 256), rows[:0], block_type.name).shape == (2, 0)
    assert not matmul(np.empty((2, 0), np.float32), rows[:, :0], block_type.name).any()


@types
def test_shapes_that_do_not_fit_are_refused(block_type: type[BlockType]):
    rows = weights_of(block_type, 4, 256)
    with pytest.raises(EdgeqError, match=r"must be uint8 \[n, "):
        matmul(activations(1, 512), rows, block_type.name)
    with pytest.raises(EdgeqError, match=r"activations must be \[T, K\]"):
        matmul(np.zeros(256, np.float32), rows, block_type.name)
    with pytest.raises(EdgeqError, match=r"bias must be \[4\]"):
        matmul(activations(1, 256), rows, block_type.name, np.zeros(3, np.float32))


def test_trained_weights():
    for values in samples.trained_rows().values():
        for block_type in [t for t in all_types() if t.encodes]:
            rows, x = block_type.encode(values[:64]), activations(2, values.shape[1])
            assert relative_error(block_type, matmul(x, rows, block_type.name), x, rows) < 1e-5
