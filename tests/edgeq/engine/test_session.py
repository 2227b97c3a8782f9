"""A session reads of a longer text only what is new, and answers as if it had read all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.engine.decoders import open_decoder
from edgeq.engine.session import Session

TEXT = [5, 6, 7, 8, 9, 10, 11, 12]


class Recorder:
    def __init__(self) -> None:
        self.fed: list[list[int]] = []
        self.resets = 0

    def feed(self, tokens):
        self.fed.append(list(tokens))
        return np.zeros(4, np.float32)

    def reset(self) -> None:
        self.resets += 1


def test_a_longer_text_is_fed_from_where_it_is_new() -> None:
    decoder = Recorder()
    session = Session(decoder)
    for text in (TEXT[:3], TEXT[:5], TEXT):
        session.feed(session.rest(text))
    assert (decoder.fed, decoder.resets) == ([TEXT[:3], TEXT[3:5], TEXT[5:]], 0)


@pytest.mark.parametrize("other", [[5, 6, 1], [5, 6], [5, 6, 7], [9, 9, 9, 9]])
def test_another_text_is_read_anew(other: list[int]) -> None:
    decoder = Recorder()
    session = Session(decoder)
    session.feed(session.rest(TEXT[:3]))
    session.feed(session.rest(other))
    assert (decoder.fed[-1], decoder.resets, session.tokens) == (other, 1, other)


@pytest.mark.parametrize("engine", ["embedded", "llama.cpp", "onnxruntime"])
def test_logits_are_those_of_a_fresh_decoder(engine: str, tinylm: Path, make_gguf, make_onnx) -> None:
    if engine == "llama.cpp":
        pytest.importorskip("llama_cpp")
    path = make_onnx(tinylm, "float32") if engine == "onnxruntime" else make_gguf(tinylm, "F16")
    if engine == "onnxruntime":
        for name in ("tokenizer.json", "config.json"):
            (path.parent / name).write_bytes((tinylm / name).read_bytes())
    with open_decoder(path, engine, 1, 64) as opened:
        session = Session(opened.decoder)
        for text in (TEXT[:4], TEXT, TEXT[2:], TEXT[2:7]):
            logits = session.feed(session.rest(text))
            with open_decoder(path, engine, 1, 64) as fresh:
                expected = fresh.decoder.feed(text)
            assert np.abs(logits - expected).max() < 1e-3 * np.ptp(expected), text
