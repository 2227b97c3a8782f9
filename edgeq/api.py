"""Models from Python: ``edgeq.load(path)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from edgeq.chat import Message, needed
from edgeq.devices.cpu import usable_cores
from edgeq.engine.decoders import open_model
from edgeq.engine.generate import Timing, generate, stream_text
from edgeq.engine.sampling import Sampler
from edgeq.engine.stops import until
from edgeq.errors import InputError
from edgeq.kernels_cpu.threads import set_threads
from edgeq.sentence_transformers import prompt_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Sampling(TypedDict, total=False):
    """The options of ``edgeq.engine.sampling.Sampler``."""

    temperature: float
    top_k: int
    top_p: float
    seed: int
    min_p: float
    repetition_penalty: float


class LoadedModel:
    """A model in the embedded engine, an ONNX file in ONNX Runtime; a context manager. ``edgeq.load`` makes it.

    ``tokenizer`` is a ``tokenizers.Tokenizer``, ``template`` the chat template or None.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        set_threads(threads or usable_cores())
        self.path = Path(path)
        with ExitStack() as stack:
            self._opened = open_model(self.path, threads or usable_cores(), stack)
            self._stack = stack.pop_all()
        self.tokenizer: Tokenizer = self._opened.tokenizer
        self.template = self._opened.chat

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the model cannot be used after that."""
        self._stack.close()

    def generate(
        self, prompt: str, max_tokens: int = 128, stop: Sequence[str] = (), **sampling: Unpack[Sampling]
    ) -> str:
        """The text that follows ``prompt``, greedily unless a ``temperature`` is given. Raises EdgeqError."""
        return "".join(self.stream(prompt, max_tokens, stop, **sampling))

    def stream(
        self, prompt: str, max_tokens: int = 128, stop: Sequence[str] = (), **sampling: Unpack[Sampling]
    ) -> Iterator[str]:
        """The same in pieces, as they come. Several streams of one model may be read in turn."""
        ids = self.tokenizer.encode(prompt).ids
        if not ids:
            raise InputError("the prompt is empty; give the text to continue")
        return self._stream(ids, max_tokens, stop, Sampler(**sampling))

    def chat(
        self,
        messages: Sequence[Message],
        max_tokens: int = 128,
        stop: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> str:
        """The answer to messages ``{"role": ..., "content": ...}``; raises EdgeqError, too, without a template."""
        text = needed(self.template, self.path).render(messages)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return "".join(self._stream(ids, max_tokens, stop, Sampler(**sampling)))

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits ``[T, vocab]`` after each token of a text; raises InputError for an encoder."""
        return self._opened.model.logits(tokens)

    def embed(self, texts: Sequence[str], prompt: str | None = None) -> NDArray[np.float32]:
        """Vectors ``[len(texts), C]`` of a model that embeds; what it cannot read of a long text is left out.

        They have unit length, unless a sentence-transformers directory says otherwise. ``prompt`` names what
        config_sentence_transformers.json puts before each text; None is its default. Raises EdgeqError.
        """
        before = prompt_of(self._opened.folder, prompt)
        model = self._opened.model
        vectors = [model.embed(self._truncating.encode(before + text).ids) for text in texts]
        return np.stack(vectors) if vectors else np.zeros((0, model.hp.vector_width), np.float32)

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> list[dict[str, float]]:
        """Probabilities by label of texts, or of pairs of texts, by a classifier of sequences.

        Of a regression, which has none, its values. Raises InputError for another model.
        """
        model = self._opened.model
        if model.hp.head == "tokens":
            raise InputError(f"{self.path}: classifies tokens, not whole texts; take tag()")
        found = []
        for text in texts:
            pair = (text,) if isinstance(text, str) else text
            encoded = self._truncating.encode(*pair)
            segments = encoded.type_ids if model.hp.n_token_types > 1 else None
            found += model.classify(encoded.ids, segments)
        return found

    def tag(self, text: str) -> list[tuple[str, str, float]]:
        """The pieces of a text with their best labels and these labels' probabilities, by a classifier of tokens.

        Raises InputError for another model.
        """
        model = self._opened.model
        if model.hp.head == "sequence":
            raise InputError(f"{self.path}: classifies whole texts, not tokens; take classify()")
        encoded = self._truncating.encode(text)
        tags = []
        for (start, end), special, scores in zip(
            encoded.offsets, encoded.special_tokens_mask, model.classify(encoded.ids), strict=True
        ):
            if not special:
                best = max(scores, key=lambda label: scores[label])
                tags.append((text[start:end], best, scores[best]))
        return tags

    @cached_property
    def _truncating(self) -> Tokenizer:
        """The tokenizer for texts of at most the model's length, special tokens among it."""
        from tokenizers import Tokenizer

        own = Tokenizer.from_str(self.tokenizer.to_str())
        own.enable_truncation(self._opened.model.hp.context)
        return own

    def _stream(
        self, ids: list[int], max_tokens: int, stop: Sequence[str], sampler: Sampler
    ) -> Iterator[str]:
        decoder = self._opened.decoder(len(ids) + max_tokens)
        tokens = generate(decoder, ids, max_tokens, sampler, self._opened.stop, Timing())
        return until(stream_text(self.tokenizer, tokens), stop)
