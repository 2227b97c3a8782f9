"""Collecting an importance matrix: what the linear layers of a model read while it reads a text.

As llama.cpp's llama-imatrix collects it: the layers of the blocks, and the head only when asked for; a decoder reads
whole chunks of the text, each from an empty cache and with the beginning-of-text token, where the tokenizer adds
one, in its first place. (llama.cpp then leaves out products of fewer than 16 tokens. Here none is left out, so that
the short sentences of an encoder count.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.text import stream_text
from edgeq.engine.model import Model
from edgeq.errors import FormatError
from edgeq.formats.gguf.imatrix import Activations, ImportanceMatrix

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = NDArray[np.float32]
BLOCKS, STACK = "blk.", "_exps."


@dataclass(frozen=True)
class Sample:
    """Tokens to be read as one sequence; ``read`` is how many bytes of the file end with them, about."""

    tokens: list[int]
    read: int


class ImportanceCollector:
    """Sums of squares per weight and column, in float64; an observer for ``Model.observe``.

    ``head`` includes what stands outside the blocks: ``output.weight``, or ``token_embd.weight`` where it is tied.
    """

    def __init__(self, head: bool = False) -> None:
        self.head = head
        self.sums: dict[
            str, NDArray[np.float64]
        ] = {}  # of a stack of experts [E, columns], else [1, columns]
        self.counts: dict[str, NDArray[np.int64]] = {}
        self._last: tuple[Floats, NDArray[np.float64]] | None = None  # queries, keys and values read the same
        self._experts = 1

    def __call__(self, name: str, x: Floats, expert: int) -> None:
        if not self.head and not name.startswith(BLOCKS):
            return
        if self._last is None or self._last[0] is not x:
            self._last = x, np.square(x, dtype=np.float64).sum(axis=0)
        if name not in self.sums:
            matrices = self._experts if STACK in name else 1
            self.sums[name] = np.zeros((matrices, x.shape[-1]))
            self.counts[name] = np.zeros(matrices, np.int64)
        self.sums[name][expert] += self._last[1]
        self.counts[name][expert] += len(x)

    def set_experts(self, experts: int) -> None:
        """How many matrices a stack of the model has."""
        self._experts = experts

    def read(self, model: Model, tokens: Sequence[int]) -> None:
        """Let a model read one sequence.

        Raises FormatError when its activations are not finite: its weights are damaged.
        """
        self.set_experts(model.hp.n_experts)
        with np.errstate(all="ignore"):  # what overflows is reported here, once
            model.observe(tokens, self, self.head)
        self._last = None
        for name, sums in self.sums.items():
            if not np.isfinite(sums).all():
                problem = f"{name} reads NaN or infinity: weights are damaged"
                raise FormatError(model.name, problem, "make it again")

    def matrix(self, dataset: str, chunk_size: int) -> ImportanceMatrix:
        """What was collected so far."""
        entries = {name: Activations(sums, self.counts[name]) for name, sums in self.sums.items()}
        most = max((int(counts.max()) for counts in self.counts.values()), default=0)
        chunks = max(1, most // chunk_size)
        return ImportanceMatrix(entries, [dataset], chunks, chunk_size, dataset)


def decoder_samples(
    path: Path, tokenizer: Tokenizer, chunk_size: int, max_tokens: int | None = None
) -> Iterator[Sample]:
    """Chunks of ``chunk_size`` tokens. What is left over is dropped, unless the text is shorter than one chunk."""
    size = min(chunk_size, max_tokens or chunk_size)
    left = max_tokens // size if max_tokens else -1  # chunks; below 0 it never reaches 0
    probe = tokenizer.encode("a")
    begin = probe.ids[:1] if probe.special_tokens_mask[0] else []
    waiting, any_chunk = list(begin), False
    for piece in stream_text(path):
        waiting += tokenizer.encode(piece.content, add_special_tokens=False).ids
        for at in range(0, len(waiting) - size + 1, size):
            any_chunk, left = True, left - 1
            yield Sample(
                begin + waiting[at + len(begin) : at + size], piece.place((at + size) / len(waiting))
            )
            if not left:
                return
        del waiting[: len(waiting) // size * size]
    if not any_chunk and waiting:
        yield Sample(waiting, piece.end)


def encoder_samples(
    path: Path, tokenizer: Tokenizer, context: int, max_tokens: int | None = None
) -> Iterator[Sample]:
    """Non-empty lines, cut to the model's context."""
    tokenizer.enable_truncation(min(context, max_tokens or context))
    left = max_tokens
    for piece in stream_text(path):
        lines = piece.content.splitlines()
        for index, line in enumerate(lines, start=1):
            tokens = tokenizer.encode(line.strip()).ids if line.strip() else []
            if left is not None:
                if len(tokens) > left:
                    return
                left -= len(tokens)
            if tokens:
                yield Sample(tokens, piece.place(index / len(lines)))
