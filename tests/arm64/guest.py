"""Runs inside the arm64 Python: kernels against their plain twins. Prints one line of JSON for each that agrees."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.encode import encode

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels_cpu"))
import plain_products as plain


def encoders(names: list[str]) -> None:
    """Bytes of rows that are not a whole number of vectors."""
    values = np.random.default_rng(0).standard_normal((5, 512)).astype(np.float32)
    for name in names:
        assert np.array_equal(encode(name, values, None, instruction_set()), by_name(name).encode(values)), (
            name
        )
        print(json.dumps(["encode", name, instruction_set().name]), flush=True)


def integer_products(names: list[str]) -> None:
    """One row and five of activations, of full range too, by 20 rows of weights: within float32's rounding."""
    rng, isa = np.random.default_rng(1), instruction_set()
    weights = rng.standard_normal((20, 512)).astype(np.float32)
    for name in names:
        rows = by_name(name).encode(weights)
        form, fields = plain.weights(name, rows)
        packed = products.pack(name, rows, 512, isa)
        for t in (1, 5):
            x = np.sign(rng.standard_normal((t, 512))).astype(np.float32) * (t + 1)  # int8 codes of ±127
            x[:, ::3] = rng.standard_normal(x[:, ::3].shape)
            quantized = plain.quantize(x, form.activation, form.block, form.sub or 0)
            wanted = plain.product(form, fields, quantized, 20)
            assert np.abs(products.product(x, packed) - wanted).max() < 1e-5 * np.abs(wanted).max(), name
        print(json.dumps(["products", name, isa.name]), flush=True)


if __name__ == "__main__":
    {"encode": encoders, "products": integer_products}[sys.argv[1]](sys.argv[2:])
