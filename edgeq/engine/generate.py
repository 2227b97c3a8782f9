"""Generating text token by token, and the text of tokens as it becomes certain."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeq.engine.decoders import Decoder
from edgeq.engine.sampling import Sampler

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass
class Timing:
    """Seconds spent on the prompt and on generation, with the token counts."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    seconds: float = 0.0


def generate(
    decoder: Decoder,
    prompt: Sequence[int],
    limit: int,
    sampler: Sampler,
    stop: frozenset[int],
    timing: Timing,
    before: Sequence[int] = (),
) -> Iterator[int]:
    """Yield up to ``limit`` tokens after ``prompt``, ending before a token of ``stop``; fills ``timing``.

    ``before`` is what the decoder had read already: a repetition penalty sees it, the prompt and what is generated.
    """
    seen = [*before, *prompt]
    started = time.perf_counter()
    logits = decoder.feed(prompt)
    timing.prompt_tokens, timing.prompt_seconds = len(prompt), time.perf_counter() - started
    for index in range(limit):
        token = sampler.pick(logits, seen)
        if token in stop:
            return
        timing.tokens.append(token)
        seen.append(token)
        yield token
        if index + 1 < limit:
            started = time.perf_counter()
            logits = decoder.feed([token])
            timing.seconds += time.perf_counter() - started


def stream_text(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """The text of a token stream in pieces; bytes of an unfinished character wait for the rest."""
    seen: list[int] = []
    shown = ""
    for token in tokens:
        seen.append(token)
        text = tokenizer.decode(seen, skip_special_tokens=False)
        if not text.endswith("�"):
            yield text[len(shown) :]
            shown = text
    text = tokenizer.decode(seen, skip_special_tokens=False) if seen else ""
    if text != shown:
        yield text[len(shown) :]
