"""Products by expert: any routing, against each row by itself."""

import numpy as np
import plain_products as plain
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import products, threads
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.products.experts import expert_product

EXPERTS, N, K = 5, 20, 512  # N fills no whole number of panels
ROUTES = {
    "one row, two experts": ([0, 0], [3, 1]),
    "one expert has all": ([0, 1, 2, 3, 4, 5], [2] * 6),
    "each its own": ([4, 2, 0, 1, 3], [0, 1, 2, 3, 4]),
    "mixed, some unused": ([0, 1, 2, 3, 4, 5, 5, 4, 0], [4, 0, 4, 4, 4, 4, 0, 1, 1]),
}


def stack(name: str, isa: Isa) -> tuple[np.ndarray, products.Packed]:
    values = np.random.default_rng(0).standard_normal((EXPERTS * N, K)).astype(np.float32)
    rows = by_name(name).encode(values)
    return rows, products.pack(name, rows, K, isa, stacked=EXPERTS)


def activations(t: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((t, K)).astype(np.float32)


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
@pytest.mark.parametrize("isa", [instruction_set(), PORTABLE], ids=lambda isa: isa.name)
def test_every_row_meets_its_experts(name: str, isa: Isa):
    encoded, packed = stack(name, isa)
    assert (packed.n, packed.stacked) == (N, EXPERTS)
    taken = [plain.weights(name, encoded[i * N : (i + 1) * N]) for i in range(EXPERTS)]
    form, weights, x = taken[0][0], [w for _, w in taken], activations(6)
    quantized = plain.quantize(x, form.activation, form.block, form.sub or 0)
    for what, route in ROUTES.items():
        rows, experts = (np.array(numbers) for numbers in route)
        result = expert_product(x, packed, rows, experts)
        wanted = plain.expert_product(form, weights, quantized, N, rows, experts)
        assert result.shape == wanted.shape
        assert np.linalg.norm(result - wanted) < 1e-5 * np.linalg.norm(wanted), what


def test_threads_share_every_expert(monkeypatch: pytest.MonkeyPatch):
    """Each range of panels is computed by one thread, for all experts."""
    monkeypatch.setattr(threads, "GRAIN_VALUES", 1)
    _, packed = stack("Q4_K", instruction_set())
    x, before = activations(6), threads.get_threads()
    rows, experts = (np.array(numbers) for numbers in ROUTES["mixed, some unused"])
    results = []
    try:
        for n in (1, 2):
            threads.set_threads(n)
            results.append(expert_product(x, packed, rows, experts))
    finally:
        threads.set_threads(before)
    assert np.array_equal(*results)


def test_one_of_a_stack_is_that_matrix():
    encoded, packed = stack("Q4_K", instruction_set())
    alone = products.pack("Q4_K", encoded[2 * N : 3 * N], K, instruction_set())
    assert np.array_equal(packed.matrix(2).data, alone.data)
    x = activations(3)
    assert np.array_equal(products.product(x, packed.matrix(2)), products.product(x, alone))


def test_nobody_sent_anywhere():
    _, packed = stack("Q4_K", instruction_set())
    nothing = np.zeros(0, np.int64)
    assert expert_product(activations(2), packed, nothing, nothing).shape == (0, N)


def test_numbers_that_are_not_there_are_refused():
    encoded, packed = stack("Q4_K", instruction_set())
    one, x = np.array([0]), activations(2)
    with pytest.raises(EdgeqError, match="experts must be from 0 to 4"):
        expert_product(x, packed, one, np.array([EXPERTS]))
    with pytest.raises(EdgeqError, match="rows must be from 0 to 1"):
        expert_product(x, packed, np.array([-1]), one)
    with pytest.raises(EdgeqError, match="must be pairs"):
        expert_product(x, packed, one, np.array([0, 1]))
    with pytest.raises(EdgeqError, match=r"activations must be \[T, 512\]"):
        expert_product(x[:, :256], packed, one, one)
    with pytest.raises(EdgeqError, match="5 matrices are stacked"):
        products.product(x, packed)
    with pytest.raises(EdgeqError, match="not 3 matrices"):
        products.pack("Q4_K", encoded, K, instruction_set(), stacked=3)
