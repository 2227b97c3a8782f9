"""The runtimes of a proof: each loads a written file and answers as ``DecoderRuntime`` or ``EncoderRuntime``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq import __version__
from edgeq.engine import fast
from edgeq.engine import model as engine
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.runtimes import llama_cpp
from edgeq.runtimes.engines import gguf_prover

Floats = NDArray[np.float32]


class EmbeddedRuntime:
    """A model in the embedded engine's exact mode: floats times the weights' own values."""

    def __init__(self, model: engine.Model, load_seconds: float) -> None:
        self.name = f"embedded engine {__version__}"
        self._model, self.load_seconds = model, load_seconds
        self._cache = model.new_cache() if model.family.generates(model.hp) else None

    @classmethod
    def of_gguf(cls, file: GGUFFile) -> EmbeddedRuntime:
        """A GGUF file, opened and timed."""
        started = time.perf_counter()
        model = engine.from_gguf(file)
        return cls(model, time.perf_counter() - started)

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        self._cache = self._model.new_cache(len(tokens))
        if first and getattr(self._model.weights, "keep", True):  # else every pass reads the file again
            self._model.prefill(tokens[:first], self._cache)
            return self._model.logits(tokens[first:], self._cache)
        return self._model.logits(tokens, self._cache)[first:]

    def step(self, token: int) -> Floats:
        return self._model.logits([token], self._cache)[-1]

    def embed(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._model.embed(tokens)

    def scores(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._model.class_logits(tokens)


class FastRuntime:
    """A decoder in the embedded engine at full speed; ``mode`` says what its activations are."""

    def __init__(self, model: fast.FastModel, load_seconds: float, mode: str = "8-bit activations") -> None:
        self.name = f"embedded engine {__version__}, {mode}"
        self._model, self.load_seconds = model, load_seconds
        self._cache = model.new_cache()

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        self._cache = self._model.new_cache(len(tokens))
        if first:
            self._model.prefill(tokens[:first], self._cache)
        return self._model.logits(tokens[first:], self._cache)

    def step(self, token: int) -> Floats:
        return self._model.logits([token], self._cache)[-1]


class LlamaCppRuntime:
    """A GGUF file in llama.cpp. Encoders are given the text, so the file's own vocabulary is proven too."""

    def __init__(self, llama: llama_cpp.LlamaCpp) -> None:
        self.name = f"llama.cpp (llama-cpp-python {llama_cpp.version()})"
        self._llama = llama
        self.load_seconds, self.peak_memory = llama.load_seconds, llama.peak_memory

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        return self._llama.logits(tokens)[0][first:]

    def step(self, token: int) -> Floats:
        return self._llama.logits([token], reset=False)[0][-1]

    def embed(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._llama.embed([text])[0][0]

    def scores(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._llama.scores([text])[0]


class OnnxRuntime:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path, pooling: str, threads: int = 0) -> None:
        from edgeq.onnx.sessions import open_session
        from edgeq.runtimes.onnxruntime import VERSION

        self.name = f"ONNX Runtime {VERSION}"
        started = time.perf_counter()
        self.session = open_session(path, threads)
        self.load_seconds = time.perf_counter() - started
        self.pooling = pooling
        self._past = self.session.empty_past()

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        return self._run(tokens, fresh=True)[first:]

    def step(self, token: int) -> Floats:
        return self._run([token], fresh=False)[-1]

    def _run(self, tokens: Sequence[int], fresh: bool) -> Floats:
        from edgeq.runtimes.onnxruntime import decoder_feeds

        session = self.session
        feeds = decoder_feeds(tokens, session.empty_past() if fresh else self._past)
        logits, *present = session.run(feeds, session.outputs)
        self._past = session.past_of(present)
        return logits[0]

    def embed(self, text: str, tokens: Sequence[int]) -> Floats:
        from edgeq.runtimes.onnxruntime import encoder_feeds

        feeds = encoder_feeds([tokens])
        if "sentence_embedding" in self.session.outputs:
            return self.session.run(feeds, ["sentence_embedding"])[0][0]
        hidden = self.session.run(feeds, ["last_hidden_state"])[0][0]
        return hidden[0] if self.pooling == "cls" else hidden.mean(axis=0)

    def scores(self, text: str, tokens: Sequence[int]) -> Floats:
        from edgeq.runtimes.onnxruntime import encoder_feeds

        logits = self.session.run(encoder_feeds([tokens]), ["logits"])[0]
        return logits.reshape(-1, logits.shape[-1])


@contextmanager
def gguf_runtime(
    path: Path, context: int, threads: int, encoder: bool
) -> Iterator[LlamaCppRuntime | EmbeddedRuntime]:
    """The runtime that a GGUF file is proven in."""
    if gguf_prover() == "llama.cpp":
        with llama_cpp.LlamaCpp(path, context, threads, embedding=encoder) as llama:
            yield LlamaCppRuntime(llama)
    else:
        with open_gguf(path) as file:
            yield EmbeddedRuntime.of_gguf(file)
