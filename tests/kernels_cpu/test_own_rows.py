"""Products of encoded rows as they are: the integers of packed ones, and the same refusals."""

import numpy as np
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import isa as isas
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.products.layout import own_rows_of
from edgeq.kernels_cpu.products.q8_0 import FORMAT

ISA = instruction_set()
N, K = 32, 4096 + 96  # more than a segment, and no whole number of them

pytestmark = pytest.mark.skipif(own_rows_of(FORMAT, ISA) is None, reason="rows are packed on this CPU")


def encoded(n: int = N, columns: int = K) -> np.ndarray:
    """Blocks of all codes, −128 too, which ggml does not write, at an odd address as in a file."""
    random = np.random.default_rng(0)
    memory = np.empty(n * columns // 32 * 34 + 1, np.uint8)[1:]
    blocks = memory.reshape(-1, 34)
    blocks[:, 2:] = random.integers(0, 256, (len(blocks), 32))
    blocks[:, :2] = random.standard_normal((len(blocks), 1)).astype("<f2").view(np.uint8)
    return memory.reshape(n, -1)


@pytest.mark.parametrize("t", [1, 5])
def test_products_are_those_of_packed_rows(t: int) -> None:
    rows = encoded()
    x = np.random.default_rng(1).standard_normal((t, K)).astype(np.float32)
    own = products.unpacked("Q8_0", rows, K, ISA)
    assert own is not None
    assert np.shares_memory(own.data, rows)
    wanted = products.product(x, products.pack("Q8_0", rows, K, ISA))
    assert np.abs(products.product(x, own) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_row_that_is_no_number_spoils_no_other() -> None:
    rows = encoded(16, 64)
    rows[3, :2] = np.array([np.nan], "<f2").view(np.uint8)
    own = products.unpacked("Q8_0", rows, 64, ISA)
    assert own is not None
    for t in (1, 4):
        result = products.product(np.ones((t, 64), np.float32), own)
        assert np.isnan(result[:, 3]).all()
        assert np.isfinite(np.delete(result, 3, axis=1)).all()


def test_what_must_be_packed() -> None:
    assert products.unpacked("Q8_0", encoded(N - 1), K, ISA) is None  # no whole panels
    assert products.unpacked("Q8_0", encoded()[::2], K, ISA) is None
    assert products.unpacked("Q4_0", np.zeros((16, 18), np.uint8), 32, ISA) is None
    assert own_rows_of(FORMAT, isas.NEON) is None
    assert own_rows_of(FORMAT, isas.AVX512_VNNI) is None
    with pytest.raises(EdgeqError, match="must be uint8"):
        products.unpacked("Q8_0", encoded(), K + 32, ISA)
