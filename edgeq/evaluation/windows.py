"""Which tokens of a text are scored, and with how much before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgeq.errors import InputError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Scored = Literal["half", "all"]
DEFAULT_CONTEXT = 512  # as llama-perplexity's


class Window(NamedTuple):
    """Tokens that a model reads at once; the rows of logits from ``first`` to the last but one are scored."""

    tokens: list[int]
    first: int

    @property
    def following(self) -> list[int]:
        """The token after each scored row."""
        return self.tokens[self.first + 1 :]


@dataclass(frozen=True)
class Windows:
    """A text cut into windows, as llama-perplexity cuts it (tools/perplexity, ``perplexity``).

    Whole windows of ``context`` tokens, what is left at the end not read. Where the tokenizer begins a text with a
    token of its own, every window's first token is replaced by it. Scored is the second half of each window, so that
    every token has at least half a context before it; with ``scored`` "all", everything after the first token.
    """

    tokens: Sequence[int]
    context: int
    bos: int | None = None
    scored: Scored = "half"

    @property
    def first(self) -> int:
        """The first row of a window that is scored."""
        return self.context // 2 if self.scored == "half" else 0

    def __len__(self) -> int:
        return len(self.tokens) // self.context

    def __iter__(self) -> Iterator[Window]:
        for start in range(0, len(self) * self.context, self.context):
            tokens = list(self.tokens[start : start + self.context])
            if self.bos is not None:
                tokens[0] = self.bos
            yield Window(tokens, self.first)


def consecutive(tokens: Sequence[int], width: int) -> list[list[int]]:
    """The tokens in windows of ``width``, the last one shorter, or left out where it would be a single token."""
    windows = [list(tokens[at : at + width]) for at in range(0, len(tokens), width)]
    return [window for window in windows if len(window) > 1]


def windows_of(
    text: str,
    name: str,
    tokenizer: Tokenizer,
    longest: int,
    context: int | None = None,
    scored: Scored = "half",
    max_tokens: int | None = None,
) -> Windows:
    """A text in windows of ``context`` tokens, 512 where None, and not more than the model's ``longest``.

    A text shorter than a window of no chosen length is one window. Raises InputError for fewer tokens than that, and
    UsageError for a context that the model does not have.
    """
    if context is not None and not 4 <= context <= longest:
        raise UsageError(f"--context {context}: must be from 4 to the model's {longest} tokens")
    ids = tokenizer.encode(text).ids[:max_tokens]
    width = context or min(DEFAULT_CONTEXT, longest, max(4, len(ids)))
    if len(ids) < width:
        raise InputError(f"{name}: has {len(ids)} tokens, a window {width}; give a longer text, or --context")
    begins = tokenizer.encode("").ids
    return Windows(ids, width, begins[0] if begins else None, scored)
