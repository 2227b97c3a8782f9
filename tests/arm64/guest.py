"""Runs inside the arm64 Python: kernels against their plain twins. Prints one line of JSON for each that agrees."""

from __future__ import annotations

import json
import sys

import numpy as np

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu.encode import encode


def encoders(names: list[str]) -> None:
    """Bytes of rows that are not a whole number of vectors."""
    values = np.random.default_rng(0).standard_normal((5, 512)).astype(np.float32)
    for name in names:
        assert np.array_equal(encode(name, values, None, instruction_set()), by_name(name).encode(values)), (
            name
        )
        print(json.dumps(["encode", name, instruction_set().name]), flush=True)


if __name__ == "__main__":
    {"encode": encoders}[sys.argv[1]](sys.argv[2:])
