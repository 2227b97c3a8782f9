"""Our GGUF files in llama.cpp, against the embedded engine in float and against llama.cpp's own quantization.

The figures behind each bar: ``pytest -rP``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import heldout
import numpy as np
import pytest

from edgeq import tokenization
from edgeq.engine import model as engine
from edgeq.evaluation.metrics import Divergence, cosines
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.runtimes.llama_cpp import LlamaCpp

LEAST_TOP1_AGREEMENT = 0.998
MOST_KL = 1e-4
MOST_PERPLEXITY_RATIO = {"Q8_0": 1.002, "Q4_K_M": 1.01}
LEAST_COSINE = {"F16": 0.9999, "Q8_0": 0.999, "Q4_K_M": 0.98}
# The embedded engine decodes weights exactly; llama.cpp also rounds activations to 8 bits.
MOST_ENGINE_KL = {"F16": 1e-6, "Q8_0": 3e-4, "Q4_K_M": 8e-3}
MOST_TWIN_KL = 1e-4  # between our file and llama.cpp's of the same type
WINDOW = 250
KL_TOKENS, PERPLEXITY_TOKENS, VARIANT_TOKENS = 2000, 6000, 250
SENTENCES = 64
THREADS = 1  # more would spin against each other where tests share the cores

MakeGGUF = Callable[[Path, str], Path]
Run = Callable[[Sequence[int]], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def _llama_cpp() -> None:
    pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def llama_quantize(make_gguf: MakeGGUF, tmp_path_factory: pytest.TempPathFactory) -> MakeGGUF:
    """(folder, quant) → llama.cpp's own quantization of our F16 file."""
    import llama_cpp

    numbers = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}
    made: dict[tuple[Path, str], Path] = {}

    def quantize(folder: Path, quant: str) -> Path:
        if (folder, quant) not in made:
            out = tmp_path_factory.mktemp("theirs") / f"{quant}.gguf"
            parameters = llama_cpp.llama_model_quantize_default_params()
            parameters.ftype, parameters.nthread = numbers[quant], THREADS
            status = llama_cpp.llama_model_quantize(
                str(make_gguf(folder, "F16")).encode(), str(out).encode(), parameters
            )
            assert status == 0
            made[folder, quant] = out
        return made[folder, quant]

    return quantize


def _windows(tokens: list[int], count: int) -> list[list[int]]:
    return [tokens[start : start + WINDOW] for start in range(0, count, WINDOW)]


def _divergence(reference: Run, candidate: Run, windows: Sequence[Sequence[int]]) -> dict[str, float]:
    divergence = Divergence()
    for window in windows:
        divergence.add(reference(window), candidate(window), window)
    return divergence.summary()


def _in_llama_cpp(path: Path, reference: Run, windows: Sequence[Sequence[int]]) -> dict[str, float]:
    with LlamaCpp(path, 512, THREADS) as llama:
        return _divergence(reference, lambda window: llama.logits(window)[0], windows)


def test_f16_equals_the_engine(tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int]) -> None:
    windows = _windows(code_tokens, KL_TOKENS)
    summary = _in_llama_cpp(make_gguf(tinylm, "F16"), engine.open_model(tinylm).logits, windows)
    print("f16", summary)
    assert summary["tokens"] == KL_TOKENS
    assert summary["top1_agreement"] >= LEAST_TOP1_AGREEMENT
    assert summary["kl_mean"] <= MOST_KL


def test_f32_equals_the_engine(decoder_folder: Path, make_gguf: MakeGGUF, code_tokens: list[int]) -> None:
    """Every variant: rope factors, biases, permutations, heads of their own width."""
    path = make_gguf(decoder_folder, "F32")
    reference, windows = engine.open_model(decoder_folder).logits, _windows(code_tokens, VARIANT_TOKENS)
    summary = _in_llama_cpp(path, reference, windows)
    print("f32", summary)
    assert summary["kl_mean"] <= MOST_KL
    with GGUFFile.open(path) as file:
        model = engine.from_gguf(file)
        assert np.abs(model.logits(windows[0]) - reference(windows[0])).max() <= 1e-3


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
def test_perplexity_is_that_of_llama_cpp(
    tinylm: Path, make_gguf: MakeGGUF, llama_quantize: MakeGGUF, code_tokens: list[int], quant: str
) -> None:
    windows = _windows(code_tokens, PERPLEXITY_TOKENS)
    with LlamaCpp(make_gguf(tinylm, quant), 512, THREADS) as ours:
        # In "perplexity" is llama.cpp's file, in "perplexity_float" ours.
        summary = _in_llama_cpp(llama_quantize(tinylm, quant), lambda window: ours.logits(window)[0], windows)
    print(quant, summary)
    assert summary["perplexity_float"] / summary["perplexity"] <= MOST_PERPLEXITY_RATIO[quant]
    assert summary["kl_mean"] <= MOST_TWIN_KL


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
def test_refined_weights_keep_its_perplexity(
    tinylm: Path, make_gguf: MakeGGUF, llama_quantize: MakeGGUF, code_tokens: list[int], quant: str
) -> None:
    windows = _windows(code_tokens, PERPLEXITY_TOKENS)
    with LlamaCpp(make_gguf(tinylm, quant, Effort.normal), 512, THREADS) as ours:
        # In "perplexity" is llama.cpp's file, in "perplexity_float" ours.
        summary = _in_llama_cpp(llama_quantize(tinylm, quant), lambda window: ours.logits(window)[0], windows)
    assert summary["perplexity_float"] / summary["perplexity"] <= MOST_PERPLEXITY_RATIO[quant]


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
def test_the_engine_runs_quantized_weights(
    tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int], quant: str
) -> None:
    reference = engine.open_model(tinylm).logits
    with GGUFFile.open(make_gguf(tinylm, quant)) as file:
        candidate = engine.from_gguf(file).logits
        summary = _divergence(reference, candidate, _windows(code_tokens, VARIANT_TOKENS))
    print(quant, summary)
    assert summary["kl_mean"] <= MOST_ENGINE_KL[quant]


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("name", ["tinylm", "minilm"])
def test_tensor_types_are_those_of_llama_cpp(
    name: str, quant: str, make_gguf: MakeGGUF, llama_quantize: MakeGGUF, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(name)
    assert _types(make_gguf(folder, quant)) == _types(llama_quantize(folder, quant))


def _types(path: Path) -> dict[str, tuple[str, list[int]]]:
    return {
        tensor.name: (tensor.tensor_type.name, tensor.shape.tolist())
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.fixture(scope="module")
def minilm_answers(minilm: Path) -> tuple[list[str], list[list[int]], np.ndarray]:
    """Sentences, their tokens, and their vectors in floats."""
    sentences = heldout.sentences().test[:SENTENCES]
    ids = [encoding.ids for encoding in tokenization.from_directory(minilm).encode_batch(sentences)]
    model = engine.open_model(minilm)
    return sentences, ids, np.stack([model.embed(row) for row in ids])


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
def test_minilm_embeddings(
    minilm: Path,
    make_gguf: MakeGGUF,
    minilm_answers: tuple[list[str], list[list[int]], np.ndarray],
    quant: str,
) -> None:
    """In llama.cpp, which tokenizes by the file's own vocabulary, and in the embedded engine."""
    path, (sentences, ids, expected) = make_gguf(minilm, quant), minilm_answers
    with LlamaCpp(path, 512, 1, embedding=True) as llama:
        in_llama_cpp = cosines(llama.embed(sentences)[0], expected)
    with GGUFFile.open(path) as file:
        model = engine.from_gguf(file)
        in_engine = cosines(np.stack([model.embed(row) for row in ids]), expected)
    print("llama.cpp", (float(in_llama_cpp.mean()), float(in_llama_cpp.min())))
    print("engine", (float(in_engine.mean()), float(in_engine.min())))
    assert in_llama_cpp.min() >= LEAST_COSINE[quant]
    assert in_engine.min() >= LEAST_COSINE[quant]
