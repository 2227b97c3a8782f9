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
from edgeq.engine.decoders import open_decoder
from edgeq.engine.steps import NotRecordableError
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.metrics import Divergence
from edgeq.formats.gguf.split import open_gguf
from edgeq.kernels_cpu import threads
from edgeq.runtimes.llama_cpp import LlamaCpp

MakeGGUF = Callable[[Path, str], Path]
OracleFolder = Callable[[str], Path]

MOST_FLOAT_DIFFERENCE = 1e-3  # of the logits' range: float weights, a cache in float32
MOST_QUANTIZED_DIFFERENCE = 0.05  # relative: activations in 8 bits
MOST_OF_EXPERTS = 0.12  # where a token near the border goes to another expert
LEAST_TOP1_AGREEMENT = 0.9
MOST_ROUNDING = 1e-5  # relative: the same arithmetic, in other tiles
MOST_Q8_0_CACHE_KL = 2e-3  # from a float16 cache, TinyLM
# llama.cpp differs from itself by 6e-4 when it attends in another way, or keeps its cache in float32: where a value
# lies between two codes, the last bit decides.
MOST_KL_TO_LLAMA_CPP = 1e-3


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
    assert relative(found, expected) <= (
        MOST_OF_EXPERTS if name == "qwen3_moe" else MOST_QUANTIZED_DIFFERENCE
    )
    assert agreement >= LEAST_TOP1_AGREEMENT


@pytest.fixture(scope="module")
def tiny(tinylm: Path, make_gguf: MakeGGUF) -> fast.FastModel:
    return fast.from_gguf(open_gguf(make_gguf(tinylm, "Q4_K_M")))


def test_parts_of_any_length_equal_one_pass(tiny: fast.FastModel, code_tokens: list[int]) -> None:
    """More than two chunks, single tokens, last tiles that are not full, and a cache that grows."""
    tokens = code_tokens[:560]
    expected = tiny.logits(tokens)
    cache, found, at = tiny.new_cache(), [], 0
    for n in (1, 2, 3, 258, 1, 7, 288):
        found.append(tiny.logits(tokens[at : at + n], cache))
        at += n
    assert cache.length == at == len(tokens)
    assert relative(np.concatenate(found), expected) <= MOST_ROUNDING
    last = tiny.prefill(tokens, tiny.new_cache())
    assert relative(last, expected[-1]) <= MOST_ROUNDING


def test_sequences_do_not_disturb_each_other(tiny: fast.FastModel, code_tokens: list[int]) -> None:
    sequences = [code_tokens[:30], code_tokens[100:190]]
    alone = [tiny.logits(tokens) for tokens in sequences]
    caches = [tiny.new_cache() for _ in sequences]
    found: list[list[np.ndarray]] = [[], []]
    for i in range(30):
        for tokens, cache, rows in zip(sequences, caches, found, strict=True):
            rows.append(tiny.logits([tokens[i]], cache))
    for rows, expected in zip(found, alone, strict=True):
        assert relative(np.concatenate(rows), expected[:30]) <= MOST_ROUNDING


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_several_python_threads(tiny: fast.FastModel, code_tokens: list[int], n_threads: int) -> None:
    """One model, each thread with a sequence of its own, whatever number of threads its kernels use."""
    before, expected = threads.get_threads(), tiny.logits(code_tokens[:40])

    def generate(_: int) -> np.ndarray:
        cache = tiny.new_cache()
        return np.concatenate([tiny.logits(code_tokens[i : i + 4], cache) for i in range(0, 40, 4)])

    threads.set_threads(n_threads)
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(generate, range(8)):
                assert relative(found, expected) <= MOST_ROUNDING
    finally:
        threads.set_threads(before)


def test_two_models_at_once(tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int]) -> None:
    file = open_gguf(make_gguf(tinylm, "Q4_K_M"))
    pair = [fast.from_gguf(file), fast.from_gguf(file)]
    expected = pair[0].logits(code_tokens[:50])
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for found in pool.map(lambda model: model.logits(code_tokens[:50]), pair):
                assert np.array_equal(found, expected)


def test_a_smaller_cache_is_close(
    tiny: fast.FastModel, tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int]
) -> None:
    tokens = code_tokens[:256]
    divergence = Divergence()
    small = fast.from_gguf(open_gguf(make_gguf(tinylm, "Q4_K_M")), "Q8_0")
    divergence.add(tiny.logits(tokens), small.logits(tokens), tokens)
    print(divergence.summary())
    assert 0 < divergence.summary()["kl_mean"] <= MOST_Q8_0_CACHE_KL


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0"])
def test_llama_cpp_answers_alike(
    tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int], quant: str
) -> None:
    pytest.importorskip("llama_cpp")
    path, tokens = make_gguf(tinylm, quant), code_tokens[:256]
    with LlamaCpp(path, len(tokens), 1) as reference:
        expected, _ = reference.logits(tokens)
    model, divergence = fast.from_gguf(open_gguf(path)), Divergence()
    cache = model.new_cache()
    found = [model.logits(tokens[:200], cache), *(model.logits([token], cache) for token in tokens[200:])]
    divergence.add(expected, np.concatenate(found), tokens)
    print(quant, divergence.summary())
    assert divergence.summary()["kl_mean"] <= MOST_KL_TO_LLAMA_CPP


def test_kept_packed_weights(
    tinylm: Path,
    make_gguf: MakeGGUF,
    code_tokens: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    file = open_gguf(make_gguf(tinylm, "Q4_K_M"))
    expected = fast.from_gguf(file).logits(code_tokens[:20])
    assert list(tmp_path.iterdir()) == []
    for keep in (True, False):  # written, then found
        found = fast.from_gguf(file, keep_packed=keep).logits(code_tokens[:20])
        assert np.array_equal(found, expected)
        assert len(list(tmp_path.iterdir())) == 1


def test_what_has_no_product_is_run_exactly(tinylm: Path, make_gguf: MakeGGUF) -> None:
    path = make_gguf(tinylm, "TQ2_0")
    with pytest.raises(NotRecordableError, match="has no product"):
        fast.from_gguf(open_gguf(path))
    with open_decoder(path, "auto", 1, 10) as opened:
        expected = engine.open_model(path).logits([5, 6])[-1]
        assert np.array_equal(opened.decoder.feed([5, 6]), expected)
    with pytest.raises(UsageError, match="--kv-type"), open_decoder(path, "auto", 1, 10, "Q8_0"):
        pass


@pytest.mark.parametrize("tokens", [[], [-1], [4096], [3, 10**9]])
def test_impossible_tokens_are_input_errors(tiny: fast.FastModel, tokens: list[int]) -> None:
    with pytest.raises(InputError):
        tiny.logits(tokens)


def test_a_foreign_cache_is_an_input_error(
    tiny: fast.FastModel, oracle_folder: OracleFolder, make_gguf: MakeGGUF
) -> None:
    other = fast.from_gguf(open_gguf(make_gguf(oracle_folder("gpt2"), "F32")))
    with pytest.raises(InputError, match="another model"):
        tiny.logits([5], other.new_cache())
    with pytest.raises(InputError, match="256 positions"):
        other.logits([5] * 257)
    with pytest.raises(InputError, match="256 positions"):
        engine.open_model(make_gguf(oracle_folder("gpt2"), "F32")).logits([5] * 257)


def test_nan_in_a_sequence_stays_there(tiny: fast.FastModel, code_tokens: list[int]) -> None:
    """Buffers are used again, by other sequences too."""
    expected = tiny.logits(code_tokens[:9])
    broken = tiny.new_cache()
    tiny.logits(code_tokens[:20], broken)
    for part in broken.parts:
        part.fill(255)  # NaN in float16
    assert np.isnan(tiny.logits(code_tokens[:9], broken)).any()
    assert np.array_equal(tiny.logits(code_tokens[:9]), expected)
