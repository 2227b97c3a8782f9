"""Generation: stop tokens, limits, greedy equality with full passes, and text never cut inside a character."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import heldout
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeq import tokenization
from edgeq.engine import model as engine
from edgeq.engine.decoders import open_decoder
from edgeq.engine.generate import Timing, generate, stream_text
from edgeq.engine.sampling import Sampler

MULTI_BYTE = "naïve £9 → 中文 한국어 😀 done"


class Scripted:
    """A decoder that says the tokens of a script, and records what it was fed."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script = iter(script)
        self.fed: list[list[int]] = []

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self.fed.append(list(tokens))
        logits = np.zeros(4096, np.float32)
        logits[next(self.script)] = 1
        return logits


def _run(decoder: Scripted, limit: int, stop: set[int]) -> tuple[list[int], Timing]:
    timing = Timing()
    return list(generate(decoder, [1, 2], limit, Sampler(), frozenset(stop), timing)), timing


def test_every_token_is_fed_once_and_the_last_not_at_all() -> None:
    decoder = Scripted([7, 8, 9])
    tokens, timing = _run(decoder, 3, set())
    assert tokens == timing.tokens == [7, 8, 9]
    assert decoder.fed == [[1, 2], [7], [8]]
    assert timing.prompt_tokens == 2


def test_a_stop_token_ends_and_is_not_shown() -> None:
    assert _run(Scripted([7, 0, 9]), 10, {0, 5})[0] == [7]
    assert _run(Scripted([5]), 10, {0, 5})[0] == []


@pytest.mark.parametrize("text", [MULTI_BYTE, "def main():\n    return 1\n", "  two  spaces ", "a�b�"])
def test_pieces_join_to_the_text_of_all_tokens(tinylm: Path, text: str) -> None:
    tokenizer = tokenization.from_directory(tinylm)
    ids = tokenizer.encode(text).ids
    pieces = list(stream_text(tokenizer, iter(ids)))
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=False) == text


def test_no_piece_has_half_a_character(tinylm: Path) -> None:
    tokenizer = tokenization.from_directory(tinylm)
    ids = tokenizer.encode(MULTI_BYTE).ids
    assert any("�" in tokenizer.decode([i]) for i in ids)  # some token holds part of a character
    pieces = list(stream_text(tokenizer, iter(ids)))
    assert not any("�" in piece for piece in pieces)
    assert len(pieces) > 10  # and yet it comes in pieces


def test_an_unfinished_character_is_shown_at_the_end(tinylm: Path) -> None:
    tokenizer = tokenization.from_directory(tinylm)
    ids = tokenizer.encode("ok 😀").ids[:-1]
    assert "".join(stream_text(tokenizer, iter(ids))) == tokenizer.decode(ids, skip_special_tokens=False)


def test_a_piece_comes_before_the_next_token_is_asked_for(tinylm: Path) -> None:
    tokenizer = tokenization.from_directory(tinylm)
    asked = 0

    def tokens() -> Iterator[int]:
        nonlocal asked
        for token in tokenizer.encode("one two three").ids:
            asked += 1
            yield token

    pieces = stream_text(tokenizer, tokens())
    next(pieces)
    assert asked == 1


@pytest.mark.parametrize("quant", [None, "F16"])
def test_greedy_generation_equals_full_passes(tinylm: Path, make_gguf, quant: str | None) -> None:
    path = make_gguf(tinylm, quant) if quant else tinylm
    prompt, expected = heldout.code()[:200], []
    with open_decoder(path, "auto", 1, 100) as opened:
        ids = opened.tokenizer.encode(prompt).ids
        assert opened.stop == {0}
        tokens = list(generate(opened.decoder, ids, 12, Sampler(), opened.stop, Timing()))
    model = engine.open_model(tinylm)
    for _ in tokens:
        expected.append(int(model.logits(ids + expected)[-1].argmax()))
    assert tokens == expected


def test_llama_cpp_generates_the_same_text(tinylm: Path, make_gguf) -> None:
    pytest.importorskip("llama_cpp")
    path, answers = make_gguf(tinylm, "F16"), []
    for name in ("embedded", "llama.cpp"):
        with open_decoder(path, name, 1, 400) as opened:
            ids = opened.tokenizer.encode(heldout.code()[:200]).ids
            tokens = generate(opened.decoder, ids, 16, Sampler(), opened.stop, Timing())
            answers.append("".join(stream_text(opened.tokenizer, tokens)))
    assert answers[0] == answers[1] != ""
