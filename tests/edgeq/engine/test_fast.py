"""The fast engine against the exact one: every family, in parts, several sequences, several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from oracle import models

from edgeq.engine import fast
from edgeq.engine import model as engine
from edgeq.errors import InputError
from edgeq.formats.gguf.split import open_gguf
from edgeq.kernels_cpu import threads

MakeGGUF = Callable[[Path, str], Path]
OracleFolder = Callable[[str], Path]

MOST_FLOAT_DIFFERENCE = 1e-3  # of the logits' range: float weights, a cache in float32
MOST_QUANTIZED_DIFFERENCE = 0.05  # relative: activations in 8 bits
LEAST_TOP1_AGREEMENT = 0.9


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", models.MODELS)
def test_float_weights(name: str, quant: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    file, tokens = open_gguf(make_gguf(oracle_folder(name), quant)), models.tokens()
    expected = engine.from_gguf(file).logits(tokens)
    model = fast.from_gguf(file, "F32")
    cache = model.new_cache(len(tokens))
    parts = [model.logits(part, cache) for part in (tokens[:70], tokens[70:71], tokens[71:])]
    difference = np.abs(np.concatenate(parts) - expected).max() / np.ptp(expected)
    print(name, quant, f"{difference:.1e}")
    assert difference <= MOST_FLOAT_DIFFERENCE


@pytest.mark.parametrize("name", models.MODELS)
def test_quantized_weights(name: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    file, tokens = open_gguf(make_gguf(oracle_folder(name), "Q8_0")), models.tokens()
    expected = engine.from_gguf(file).logits(tokens)
    found = fast.from_gguf(file).logits(tokens)
    agreement = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
    print(name, f"{relative(found, expected):.1e}", agreement)
    assert relative(found, expected) <= MOST_QUANTIZED_DIFFERENCE
    assert agreement >= LEAST_TOP1_AGREEMENT
