"""The engines of ``edgeq run``: each reads tokens and gives the logits after the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq import tokenization
from edgeq.engine import model as engine
from edgeq.errors import FormatError, InputError, UsageError
from edgeq.formats.gguf.split import open_gguf
from edgeq.runtimes import llama_cpp

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EngineName = Literal["auto", "embedded", "llama.cpp", "onnxruntime"]


class Decoder(Protocol):
    """One sequence in progress."""

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; logits ``[vocab]`` after the last."""


@dataclass
class Opened:
    """A model ready to generate."""

    decoder: Decoder
    tokenizer: Tokenizer
    stop: frozenset[int]
    context: int
    engine: str


class _Embedded:
    def __init__(self, model: engine.Model, room: int) -> None:
        self._model, self._cache = model, model.new_cache(room)

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self._model.prefill(tokens, self._cache)


class _LlamaCpp:
    def __init__(self, llama: llama_cpp.LlamaCpp) -> None:
        self._llama = llama

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self._llama.logits(tokens, reset=False)[0][-1]


class _Onnx:
    def __init__(self, path: Path, threads: int) -> None:
        from edgeq.runtimes.onnxruntime import OnnxSession

        self._session = OnnxSession(path, threads)
        self._past = self._session.empty_past()
        if not self._past:
            raise InputError(f"{path}: has no past_key_values inputs, so it is no decoder that can generate")

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        from edgeq.runtimes.onnxruntime import decoder_feeds

        feeds = decoder_feeds(tokens, self._past)
        logits, *present = self._session.run(feeds, self._session.outputs)
        self._past = self._session.past_of(present)
        return logits[0, -1]


@dataclass
class _Checked:
    """Stops at a model whose weights are damaged, before a NaN reaches the sampler."""

    decoder: Decoder
    path: Path

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):  # what overflowed is reported here, once
            logits = self.decoder.feed(tokens)
        if not np.isfinite(logits.max()):
            raise FormatError(self.path, "gives no finite logits: its weights are damaged", "make it again")
        return logits


@contextmanager
def open_decoder(path: Path, name: EngineName, threads: int, room: int) -> Iterator[Opened]:
    """Open a GGUF file, an ONNX file or a model directory for generation; raises EdgeqError.

    ``room`` is how many tokens prompt and answer may take in llama.cpp, which allocates its cache at the start.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    kind = "directory" if path.is_dir() else "onnx" if path.suffix == ".onnx" else "gguf"
    chosen = (
        {"directory": "embedded", "gguf": "embedded", "onnx": "onnxruntime"}[kind] if name == "auto" else name
    )
    allowed = {"directory": ["embedded"], "gguf": ["embedded", "llama.cpp"], "onnx": ["onnxruntime"]}[kind]
    if chosen not in allowed:
        raise UsageError(f"--engine {chosen} does not run {path}; take {' or '.join(allowed)}")
    with ExitStack() as stack:
        if kind == "gguf":
            yield _open_gguf(path, chosen, threads, room, stack)
            return
        folder = path if kind == "directory" else path.parent
        tokenizer = tokenization.from_directory(folder)
        if kind == "directory":
            model = _decoder(engine.open_model(path), path)
            decoder: Decoder = _Embedded(model, room)
            context = model.hp.context
        else:
            decoder, context = _Onnx(path, threads), 2**31
        yield Opened(_Checked(decoder, path), tokenizer, tokenization.end_tokens(folder), context, chosen)


def _decoder(model: engine.Model, path: Path) -> engine.Model:
    if model.family.kind != "decoder":
        raise InputError(f"{path}: is an encoder; it embeds text and generates none")
    return model


def _open_gguf(path: Path, chosen: str, threads: int, room: int, stack: ExitStack) -> Opened:
    file = stack.enter_context(open_gguf(path))
    model = _decoder(engine.from_gguf(file), path)
    decoder: Decoder = _Embedded(model, room)
    if chosen == "llama.cpp":
        llama = llama_cpp.LlamaCpp(
            file.path, min(room, model.hp.context), threads
        )  # takes a first shard only
        decoder = _LlamaCpp(stack.enter_context(llama))
    tokenizer = tokenization.from_gguf(path, file.metadata)
    stop = tokenization.end_tokens(path, file.metadata)
    return Opened(_Checked(decoder, path), tokenizer, stop, model.hp.context, chosen)
