"""TinyLM on held-out code: the statistics of the embedded engine beside llama.cpp's own on the same files."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.engine import fast, model
from edgeq.engine.float_operands import FloatOperands, float_model, read_rows
from edgeq.errors import EdgeqError, InputError
from edgeq.evaluation.decoders import Beside, evaluate_decoder
from edgeq.evaluation.runtimes import EmbeddedRuntime, FastRuntime, LlamaCppRuntime
from edgeq.evaluation.windows import Windows
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_source import GGUFSource
from edgeq.runtimes import llama_cpp
from edgeq.source import SourceModel

WINDOWS, CONTEXT = 6, 128


@pytest.fixture(scope="module")
def windows(code_tokens) -> Windows:
    return Windows(code_tokens[: WINDOWS * CONTEXT], CONTEXT)


@pytest.fixture(scope="module")
def floats(tinylm) -> fast.FastModel:
    return float_model(SourceModel.open(tinylm))


def test_recorded_floats_are_the_exact_mode(tinylm, floats, code_tokens) -> None:
    exact = model.open_model(tinylm).logits(code_tokens[:40])
    assert np.abs(floats.logits(code_tokens[:40]) - exact).max() < 1e-3
    assert floats.weights.operand("blk.0.ffn_up.weight").type_name == "BF16"


def test_one_matrix_can_be_replaced(tinylm, floats, make_gguf, code_tokens) -> None:
    """Only its copy changes, and a copy with the very values changes nothing."""
    name, source = "blk.2.ffn_down.weight", GGUFSource.open(make_gguf(tinylm, "Q2_K"))
    operands, tokens = floats.weights, code_tokens[:20]
    assert isinstance(operands, FloatOperands)
    before = floats.logits(tokens)
    same = float_model(operands.source, operands.replaced(name, read_rows(operands.source, name)))
    other = float_model(operands.source, operands.replaced(name, read_rows(source, name)))
    assert np.array_equal(same.logits(tokens), before)
    assert 0.01 < np.abs(other.logits(tokens) - before).max() < 10
    assert np.array_equal(floats.logits(tokens), before)


def test_numbers_are_llama_cpps(tinylm, make_gguf, windows) -> None:
    """Both models in either engine, and what one engine's numbers are beside the other's."""
    pytest.importorskip("llama_cpp")
    paths = make_gguf(tinylm, "Q4_K_M"), make_gguf(tinylm, "F16")
    own, base = (FastRuntime(fast.from_gguf(open_gguf(path)), 0) for path in paths)
    ours = evaluate_decoder(own, windows, Beside(base)).summary()
    with (
        llama_cpp.LlamaCpp(paths[0], CONTEXT, 1) as quantized,
        llama_cpp.LlamaCpp(paths[1], CONTEXT, 1) as reference,
    ):
        theirs = evaluate_decoder(
            LlamaCppRuntime(quantized), windows, Beside(LlamaCppRuntime(reference))
        ).summary()
    assert ours["tokens"] == theirs["tokens"] == WINDOWS * (CONTEXT // 2 - 1)
    for name in ("perplexity", "perplexity_float"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.005)
    # So few tokens hold KL to its error; benchmarks/evaluation.py has enough for half a per cent.
    assert ours["kl_mean"] == pytest.approx(theirs["kl_mean"], abs=3 * theirs["kl_standard_error"])


def test_the_first_half_of_a_window_changes_no_answer(tinylm, windows) -> None:
    runtime = EmbeddedRuntime(model.open_model(tinylm), 0)
    tokens = windows.tokens[:32]
    assert np.allclose(runtime.window(tokens, 16), runtime.window(tokens)[16:], atol=1e-4)


class _Constant:
    """Logits that never change."""

    name = "constant"

    def __init__(self, vocab: int, value: float) -> None:
        self._row = np.full((1, vocab), value, np.float32)

    def window(self, tokens: list[int], first: int = 0) -> np.ndarray:
        return np.repeat(self._row, len(tokens) - first, axis=0)


def test_progress_and_watch_see_every_window(windows) -> None:
    seen, done = [], []
    answers = evaluate_decoder(
        _Constant(4096, 1.0),
        windows,
        progress=lambda i, n: done.append((i, n)),
        watch=lambda window, logits: seen.append(logits.shape),
    )
    assert done == [(i, WINDOWS) for i in range(1, WINDOWS + 1)]
    assert seen == [(CONTEXT // 2 - 1, 4096)] * WINDOWS
    assert len(answers.seconds) == WINDOWS
    assert answers.summary()["perplexity"] == pytest.approx(4096)


def test_what_cannot_be_compared_is_said(windows) -> None:
    with pytest.raises(EdgeqError, match="no finite logits"):
        evaluate_decoder(_Constant(4096, np.nan), windows)
    with pytest.raises(InputError, match="4097 tokens in its vocabulary, the model 4096"):
        evaluate_decoder(_Constant(4096, 0), windows, Beside(_Constant(4097, 0)))
