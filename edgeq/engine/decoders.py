"""Models that generate, by engine: each reads tokens and gives the logits after the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeq import chat as chat_templates
from edgeq import tokenization
from edgeq.chat import ChatTemplate
from edgeq.engine import fast
from edgeq.engine import model as engine
from edgeq.engine.steps import NotRecordableError
from edgeq.errors import InputError, NotFiniteError, UsageError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.kernels_cpu.cached import CacheType
from edgeq.runtimes import llama_cpp
from edgeq.runtimes.engines import Wanted, check_cache_type, engine_for, file_kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeq.engine.graphs import Graph


class Decoder(Protocol):
    """One sequence in progress."""

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; logits ``[vocab]`` after the last."""

    def reset(self) -> None:
        """Forget what was read: the next tokens begin a text."""


@dataclass
class Opened:
    """A model ready to generate."""

    decoder: Decoder
    tokenizer: Tokenizer
    stop: frozenset[int]
    context: int
    engine: str
    chat: ChatTemplate | None


C = TypeVar("C")


class _CachedModel(Protocol[C]):
    """A model of the embedded engine, fast or exact, with caches of its own kind."""

    def new_cache(self, expected: int = 0) -> C: ...

    def prefill(self, tokens: Sequence[int], cache: C) -> NDArray[np.float32]: ...


class _Embedded(Generic[C]):
    def __init__(self, model: _CachedModel[C], room: int) -> None:
        self._model, self._room = model, room
        self.reset()

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self._model.prefill(tokens, self._cache)

    def reset(self) -> None:
        self._cache = self._model.new_cache(self._room)


class _LlamaCpp:
    def __init__(self, llama: llama_cpp.LlamaCpp) -> None:
        self._llama, self._begins = llama, True

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        begins, self._begins = self._begins, False
        return self._llama.logits(tokens, reset=begins)[0][-1]

    def reset(self) -> None:
        self._begins = True


@dataclass
class Checked:
    """Stops at a model whose weights are damaged, before a NaN reaches the sampler."""

    decoder: Decoder
    path: Path

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):  # what overflowed is reported here, once
            logits = self.decoder.feed(tokens)
        if not np.isfinite(logits.max()):
            raise NotFiniteError(
                self.path, "gives no finite logits: its weights are damaged", "make it again"
            )
        return logits

    def reset(self) -> None:
        self.decoder.reset()


@dataclass
class Embedded:
    """A model in the embedded engine, with what its texts need.

    ``model`` is exact; ``decoder`` generates at full speed where the weights are in a GGUF file. ``cache_type`` is what
    keys and values are then kept in, None for float16.
    """

    path: Path
    model: engine.Model
    tokenizer: Tokenizer
    stop: frozenset[int]
    chat: ChatTemplate | None
    file: GGUFFile | None  # what the weights are in, if it is a GGUF file
    cache_type: CacheType | None = None
    keep_packed: bool = False

    @property
    def folder(self) -> Path:
        """Where the model's small files are."""
        return self.path if self.file is None else self.path.parent

    def decoder(self, room: int) -> Decoder:
        """A new text, which may get ``room`` tokens; raises InputError for an encoder."""
        model = self.fast
        return Checked(_Embedded(self.model, room) if model is None else _Embedded(model, room), self.path)

    def check_decoder(self) -> None:
        """Raise InputError for an encoder."""
        if not self.model.family.generates(self.model.hp):
            raise InputError(f"{self.path}: is an encoder; it embeds text and generates none")

    @cached_property
    def fast(self) -> fast.FastModel | None:
        """The same model, packed; None where only the exact mode computes it."""
        self.check_decoder()
        reason = "is no GGUF file"
        if self.file is not None:
            try:
                return fast.from_gguf(self.file, self.cache_type or "F16", self.keep_packed)
            except NotRecordableError as error:
                reason = str(error)
        if self.cache_type is not None:
            raise UsageError(
                f"{self.path}: {reason}, so its keys and values stay float32; leave --kv-type out"
            )
        if self.keep_packed:
            raise UsageError(f"{self.path}: {reason}, so nothing is packed; leave --keep-packed out")
        return None


def open_model(
    path: Path, threads: int, stack: ExitStack, cache_type: CacheType | None = None, keep_packed: bool = False
) -> Embedded | Graph:
    """Open a model in the embedded engine, an ONNX file in ONNX Runtime; the stack closes it. Raises EdgeqError."""
    if file_kind(path) != "onnx":
        return open_embedded(path, stack, cache_type, keep_packed)
    from edgeq.engine.graphs import open_graph  # ONNX Runtime is imported where it is needed

    return open_graph(path, threads)


def open_embedded(
    path: Path, stack: ExitStack, cache_type: CacheType | None = None, keep_packed: bool = False
) -> Embedded:
    """Open a GGUF file or a model directory; the stack closes it. Raises EdgeqError."""
    if path.is_dir():
        model, tokenizer = engine.open_model(path), tokenization.from_directory(path)
        template = chat_templates.of_directory(path)
        return Embedded(path, model, tokenizer, tokenization.end_tokens(path), template, None, cache_type)
    file = stack.enter_context(open_gguf(path))
    model = engine.from_gguf(file)
    tokenizer = tokenization.from_gguf(path, file.metadata)
    stop, template = tokenization.end_tokens(path, file.metadata), chat_templates.of_gguf(path, file.metadata)
    return Embedded(path, model, tokenizer, stop, template, file, cache_type, keep_packed)


@contextmanager
def open_decoder(
    path: Path,
    wanted: Wanted,
    threads: int,
    room: int,
    cache_type: CacheType | None = None,
    keep_packed: bool = False,
) -> Iterator[Opened]:
    """Open a GGUF file, an ONNX file or a model directory for generation; raises EdgeqError.

    ``room`` is how many tokens prompt and answer may take: llama.cpp allocates its cache at the start.
    ``cache_type`` is what the embedded engine keeps keys and values of a GGUF file in, None for float16; with
    ``keep_packed`` it keeps the packed weights for the next start.
    """
    engine = engine_for(path, wanted)
    check_cache_type(engine, cache_type)
    with ExitStack() as stack:
        own = open_model(path, threads, stack, cache_type, keep_packed)
        in_llama_cpp = engine == "llama.cpp"
        decoder = _in_llama_cpp(own, threads, room, stack) if in_llama_cpp else own.decoder(room)
        yield Opened(decoder, own.tokenizer, own.stop, own.model.hp.context, engine, own.chat)


def _in_llama_cpp(own: Embedded | Graph, threads: int, room: int, stack: ExitStack) -> Decoder:
    assert isinstance(own, Embedded)
    assert own.file is not None  # llama.cpp opens nothing else
    own.check_decoder()
    # Of shards llama.cpp takes the first alone.
    llama = llama_cpp.LlamaCpp(own.file.path, min(room, own.model.hp.context), threads)
    return Checked(_LlamaCpp(stack.enter_context(llama)), own.path)
