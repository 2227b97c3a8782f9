"""The measures against their formulas, and the record that goes with every export."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.text import Text
from edgeq.evaluation.metrics import Divergence, cosine_summary, label_summary
from edgeq.evaluation.proof import Reference, prove
from edgeq.evaluation.runtimes import EmbeddedRuntime, OnnxRuntime, gguf_runtime
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.source import SourceModel

LEAST_FLOAT_COSINE = 0.99999
MOST_FLOAT_KL = 1e-5

COMMON = {"runtime", "text", "builtin_text", "load_seconds"}
DECODER = {
    "tokens",
    "kl_mean",
    "kl_standard_error",
    "kl_99",
    "top1_agreement",
    "perplexity",
    "perplexity_float",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
}
CLASSIFIER = {"sentences", "logit_difference", "same_label", "sentences_per_second"}
ENCODER = {"sentences", "cosine_mean", "cosine_min", "sentences_per_second"}


def _softmax(row: np.ndarray) -> list[float]:
    exponents = [math.exp(float(x) - float(max(row))) for x in row]
    return [e / math.fsum(exponents) for e in exponents]


def test_divergence_is_its_formula() -> None:
    random = np.random.default_rng(0)
    divergence, kls, same, nll, float_nll = Divergence(), [], [], [], []
    for length in (5, 9):
        reference, candidate = random.standard_normal((2, length, 30)).astype(np.float32) * 3
        tokens = random.integers(0, 30, length).tolist()
        divergence.add(reference, candidate, tokens)
        for i in range(length):
            p, q = _softmax(reference[i]), _softmax(candidate[i])
            kls.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            same.append(p.index(max(p)) == q.index(max(q)))
            if i + 1 < length:
                nll.append(-math.log(q[tokens[i + 1]]))
                float_nll.append(-math.log(p[tokens[i + 1]]))
    summary = divergence.summary()
    assert summary["tokens"] == 14
    assert summary["kl_mean"] == pytest.approx(math.fsum(kls) / 14, rel=1e-6)
    assert summary["kl_standard_error"] == pytest.approx(np.std(kls) / math.sqrt(13), rel=1e-5)
    assert summary["kl_99"] == pytest.approx(np.quantile(kls, 0.99), rel=1e-6)
    assert summary["top1_agreement"] == sum(same) / 14
    assert summary["perplexity"] == pytest.approx(math.exp(math.fsum(nll) / 12), rel=1e-6)
    assert summary["perplexity_float"] == pytest.approx(math.exp(math.fsum(float_nll) / 12), rel=1e-6)


def test_divergence_of_equal_logits_is_nothing() -> None:
    logits, divergence = np.random.default_rng(1).standard_normal((6, 20)).astype(np.float32), Divergence()
    divergence.add(logits, logits + 7, [1, 2, 3, 4, 5, 6])  # a constant changes no probability
    assert divergence.summary()["kl_mean"] == pytest.approx(0, abs=1e-6)
    assert divergence.summary()["top1_agreement"] == 1


def test_cosine_summary_is_its_formula() -> None:
    reference = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
    candidate = np.array([[5, 0], [1, 1], [4, 3]], np.float32)
    summary = cosine_summary(reference, candidate)
    assert summary["sentences"] == 3
    assert summary["cosine_min"] == pytest.approx(math.sqrt(0.5))
    assert summary["cosine_mean"] == pytest.approx((1 + math.sqrt(0.5) + 24 / 25) / 3)


@pytest.fixture(scope="module")
def decoder_reference(tinylm: Path, code_text: Text) -> Reference:
    return Reference(SourceModel.open(tinylm), code_text)


@pytest.mark.parametrize("runtime", ["onnx", "embedded", "best"])
def test_proof_of_a_decoder(
    runtime: str,
    decoder_reference: Reference,
    tinylm: Path,
    make_onnx: Callable[..., Path],
    make_gguf: Callable[..., Path],
) -> None:
    done = []

    def progress(number: int, total: int) -> None:
        done.append((number, total))

    if runtime == "onnx":
        path = make_onnx(tinylm, "float32")
        record = prove(decoder_reference, OnnxRuntime(path, "none"), progress)
    elif runtime == "embedded":
        path = make_gguf(tinylm, "F16")
        with GGUFFile.open(path) as file:
            record = prove(decoder_reference, EmbeddedRuntime.of_gguf(file), progress)
    else:
        path = make_gguf(tinylm, "F16")
        with gguf_runtime(path, 256, 1, encoder=False) as loaded:
            record = prove(decoder_reference, loaded, progress)
    assert record.keys() == COMMON | DECODER
    assert record["text"] == "held-out code"
    assert record["builtin_text"] is False
    assert record["tokens"] == 1024
    assert record["kl_mean"] <= MOST_FLOAT_KL
    assert record["perplexity"] == pytest.approx(record["perplexity_float"], rel=1e-3)
    assert 5 < record["perplexity"] < 40
    assert min(record[key] for key in record if key.endswith(("per_second", "load_seconds"))) > 0
    assert done == [(i, 8) for i in range(1, 9)]


def test_labels_are_compared_by_their_formulas() -> None:
    expected = [np.array([[0.0, 2.0, 1.0]], np.float32), np.array([[4.0, 0.0, 1.0]], np.float32)]
    answers = [np.array([[0.5, 2.0, 1.0]], np.float32), np.array([[0.0, 0.0, 1.0]], np.float32)]
    assert label_summary(expected, answers) == {"sentences": 2, "logit_difference": 1.0, "same_label": 0.5}
    one = [np.array([[3.0]], np.float32)]
    assert label_summary(one, [one[0] + 0.25]) == {"sentences": 1, "logit_difference": 0.25}


@pytest.mark.parametrize(
    ("name", "kind"), [("bert-sequence", "gguf"), ("bert-sequence", "engine"), ("modernbert-tokens", "onnx")]
)
def test_proof_of_a_classifier(
    name: str, kind: str, encoder_folder: Callable[[str], Path], make_onnx: Any, make_gguf: Any
) -> None:
    text = Text("few sentences", "the rat sat\nand the cat\nran to the hat of the man")
    folder = encoder_folder(name)
    reference = Reference(SourceModel.open(folder), text)
    if kind == "onnx":
        record = prove(reference, OnnxRuntime(make_onnx(folder, "float32"), "none"))
    elif kind == "engine":
        with GGUFFile.open(make_gguf(folder, "F16")) as file:
            record = prove(reference, EmbeddedRuntime.of_gguf(file))
    else:
        with gguf_runtime(make_gguf(folder, "F16"), 256, 1, encoder=True) as runtime:
            record = prove(reference, runtime)
    assert record.keys() == COMMON | CLASSIFIER
    assert record["sentences"] == 3
    assert record["same_label"] >= 0.6  # one sentence is a near tie
    assert 0 < record["logit_difference"] < 2e-3


@pytest.mark.parametrize("kind", ["onnx", "gguf"])
def test_an_encoder_that_says_no_pooling(
    kind: str, encoder_folder: Callable[[str], Path], make_onnx: Any, make_gguf: Any
) -> None:
    """Everybody takes the mean of the tokens."""
    folder = encoder_folder("distilbert")
    reference = Reference(SourceModel.open(folder), Text("few", "the rat sat\nand the cat"))
    if kind == "onnx":
        record = prove(reference, OnnxRuntime(make_onnx(folder, "float32"), "none"))
    else:
        with gguf_runtime(make_gguf(folder, "F16"), 256, 1, encoder=True) as runtime:
            record = prove(reference, runtime)
    assert record["cosine_min"] >= LEAST_FLOAT_COSINE


@pytest.mark.parametrize("kind", ["onnx", "gguf"])
def test_proof_of_an_encoder(
    kind: str,
    minilm: Path,
    sentence_text: Text,
    make_onnx: Callable[..., Path],
    make_gguf: Callable[..., Path],
) -> None:
    text = Text("few sentences", "\n".join(sentence_text.lines()[:10]))
    reference = Reference(SourceModel.open(minilm), text)
    if kind == "onnx":
        path = make_onnx(minilm, "float32")
        record = prove(reference, OnnxRuntime(path, "mean"))
    else:
        path = make_gguf(minilm, "F16")
        with gguf_runtime(path, 512, 1, encoder=True) as runtime:
            record = prove(reference, runtime)
    assert record.keys() == COMMON | ENCODER
    assert record["sentences"] == 10
    assert record["cosine_min"] >= LEAST_FLOAT_COSINE
    assert record["sentences_per_second"] > 0
