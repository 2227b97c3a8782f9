"""Stop strings: a text that comes in pieces ends before the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def until(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of ``stops`` to be complete; what may still become one is held back until then."""
    held = ""
    for piece in pieces:
        held += piece
        found = [(at + len(stop), at) for stop in stops if (at := held.find(stop)) >= 0]
        if found:
            _, at = min(found)
            if at:
                yield held[:at]
            return
        kept = max((_overlap(held, stop) for stop in stops), default=0)
        if len(held) > kept:
            yield held[: len(held) - kept]
            held = held[len(held) - kept :]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
