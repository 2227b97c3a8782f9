"""The embedded engine in float against a forward pass written apart (tests/naive.py), and against itself in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import heldout
import naive
import numpy as np
import pytest

from edgeq import tokenization
from edgeq.engine import model as engine
from edgeq.engine.model import Model
from edgeq.errors import InputError
from edgeq.source import SourceModel

MOST_LOGIT_DIFFERENCE = 1e-3
TOKENS = 96
SENTENCES = 3
# The same arithmetic in another order: what is left is float32 rounding.
MOST_ROUNDING = 1e-4


@pytest.fixture(scope="module")
def decoder(decoder_folder: Path) -> Model:
    return engine.open_model(decoder_folder)


def test_decoder_equals_naive(decoder: Model, decoder_folder: Path, code_tokens: list[int]) -> None:
    tokens = code_tokens[:TOKENS]
    expected = naive.llama_logits(*naive.load(decoder_folder), tokens)
    assert np.abs(expected).max() > 1  # or the bar would mean nothing
    assert np.abs(decoder.logits(tokens) - expected).max() <= MOST_LOGIT_DIFFERENCE


def test_encoder_equals_naive(minilm: Path) -> None:
    model, (config, tensors) = engine.open_model(minilm), naive.load(minilm)
    tokenizer = tokenization.from_directory(minilm)
    for sentence in [*heldout.sentences().test[:SENTENCES], "a", " ".join(heldout.sentences().test[:9])]:
        ids = tokenizer.encode(sentence).ids
        expected = naive.bert_hidden(config, tensors, ids)
        assert np.abs(model.hidden(ids) - expected).max() <= MOST_LOGIT_DIFFERENCE
        vector = model.embed(ids)
        assert np.abs(vector - naive.mean_embedding(expected)).max() <= MOST_LOGIT_DIFFERENCE
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_cached_decoding_equals_one_pass(decoder: Model, code_tokens: list[int]) -> None:
    tokens = code_tokens[:40]
    cache = decoder.new_cache()
    first = decoder.logits(tokens[:7], cache)
    steps = [decoder.logits([token], cache) for token in tokens[7:]]
    assert cache.length == len(tokens)
    assert np.abs(np.concatenate([first, *steps]) - decoder.logits(tokens)).max() <= MOST_ROUNDING


def test_chunked_prefill_equals_one_pass(tinylm: Path, code_tokens: list[int]) -> None:
    model = engine.open_model(tinylm)
    tokens = code_tokens[:600]  # more than two chunks, and a cache that grows between them
    cache = model.new_cache()
    last = model.prefill(tokens, cache)
    full_cache = model.new_cache()
    full = model.logits(tokens, full_cache)
    assert cache.length == full_cache.length == len(tokens)
    assert np.abs(last - full[-1]).max() <= MOST_ROUNDING
    following = model.logits([5], cache)[-1]
    assert np.abs(following - model.logits([5], full_cache)[-1]).max() <= MOST_ROUNDING


def test_last_only_is_the_last_row(decoder: Model, code_tokens: list[int]) -> None:
    tokens = code_tokens[:20]
    last = decoder.logits(tokens, last_only=True)
    assert last.shape == (1, decoder.hp.vocab)
    assert np.abs(last[0] - decoder.logits(tokens)[-1]).max() <= MOST_ROUNDING


def test_streamed_weights_equal_kept_ones(
    random_llama: Callable[[str], Path], code_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.engine.weights._PANEL_VALUES", 1000)  # several panels, the last one short
    source = SourceModel.open(random_llama("llama3-rope"))
    kept, streamed = (engine.from_source(source, keep) for keep in (True, False))
    tokens = code_tokens[:20]
    assert np.abs(kept.logits(tokens) - streamed.logits(tokens)).max() <= MOST_ROUNDING


@pytest.mark.parametrize("tokens", [[], [-1], [4096], [3, 10**9]])
def test_impossible_tokens_are_input_errors(tinylm: Path, tokens: list[int]) -> None:
    model = engine.open_model(tinylm)
    with pytest.raises(InputError):
        model.logits(tokens)
    with pytest.raises(InputError):
        model.prefill(tokens, model.new_cache())


def test_an_encoder_takes_no_more_than_its_positions(minilm: Path) -> None:
    model = engine.open_model(minilm)
    assert model.hidden([7] * 512).shape == (512, 384)
    with pytest.raises(InputError, match="512"):
        model.hidden([7] * 513)


def test_gelu_equals_its_plain_twin() -> None:
    from edgeq.kernels_cpu.activations import gelu

    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-30, -1e-30, 80, -80]]).astype(np.float32)
    expected = naive.gelu(x)
    assert np.abs(gelu(x) - expected).max() <= 2e-6
    assert np.array_equal(gelu(x.reshape(-1, 2, 1)), gelu(x).reshape(-1, 2, 1))
