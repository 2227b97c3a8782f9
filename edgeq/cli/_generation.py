"""What ``edgeq run`` does: continue a text, answer one message, or hold a conversation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.chat import Message, needed
from edgeq.cli._output import print_json, warn
from edgeq.engine.decoders import Opened, open_decoder
from edgeq.engine.generate import Timing, generate, stream_text
from edgeq.engine.sampling import Sampler
from edgeq.engine.session import Session
from edgeq.engine.stops import until
from edgeq.errors import InputError
from edgeq.kernels_cpu.cached import CacheType
from edgeq.runtimes.engines import Wanted

_LONGEST = 8192  # tokens of a conversation, where nobody says: llama.cpp allots its cache at the start


@dataclass(frozen=True)
class How:
    """How to generate."""

    sampler: Sampler
    limit: int
    stop: tuple[str, ...]
    engine: Wanted
    threads: int
    cache_type: CacheType | None = None


def check_text(option: str, text: str | None) -> None:
    """Raise InputError for a text that the terminal's encoding broke."""
    if any("\ud800" <= c <= "\udfff" for c in text or ""):
        raise InputError(f"{option}: is not UTF-8; check the terminal's encoding")


def continue_text(model: Path, prompt: str, how: How, as_json: bool) -> None:
    """Print the prompt and what follows it."""
    # llama.cpp allots its cache at the start; a token is at least one byte of the prompt, plus a few special ones.
    room = len(prompt.encode()) + how.limit + 8
    with open_decoder(model, how.engine, how.threads, room, how.cache_type) as opened:
        ids = opened.tokenizer.encode(prompt).ids
        if not ids:
            raise InputError("--prompt: is empty; give the text to continue")
        if len(ids) + how.limit > opened.context:
            warn(
                f"{len(ids) + how.limit} tokens are more than the {opened.context} the model was trained for"
            )
        if not as_json:
            print(prompt, end="", flush=True)
        _show(opened, ids, prompt, how, as_json)


def answer(model: Path, prompt: str, system: str | None, context: int, how: How, as_json: bool) -> None:
    """Print the answer to one message."""
    with open_decoder(model, how.engine, how.threads, context or _LONGEST, how.cache_type) as opened:
        messages = [*_system(system), {"role": "user", "content": prompt}]
        _show(opened, _ids(opened, model, messages, context, how), prompt, how, as_json)


def converse(model: Path, system: str | None, context: int, how: How) -> None:
    """Answer each line of the standard input, until it ends."""
    with open_decoder(model, how.engine, how.threads, context or _LONGEST, how.cache_type) as opened:
        needed(opened.chat, model)
        session, messages = Session(opened.decoder), _system(system)
        for line in _lines():
            messages.append({"role": "user", "content": line})
            ids = _ids(opened, model, messages, context, how)
            text = _print_all(_pieces(opened, session, ids, how, Timing()))
            print(flush=True)
            messages.append({"role": "assistant", "content": text})


def _lines() -> Iterator[str]:
    """Lines that say something; on a terminal each is asked for."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        check_text("standard input", line)
        if line.strip():
            yield line.strip()


def _system(text: str | None) -> list[Message]:
    return [] if text is None else [{"role": "system", "content": text}]


def _ids(opened: Opened, path: Path, messages: Sequence[Message], context: int, how: How) -> list[int]:
    """The tokens of a conversation; the template writes the special ones itself."""
    text = needed(opened.chat, path).render(messages)
    ids: list[int] = opened.tokenizer.encode(text, add_special_tokens=False).ids
    most = context or min(_LONGEST, opened.context)
    if len(ids) + how.limit > most:
        raise InputError(
            f"the conversation has {len(ids)} tokens and may get {how.limit} more, which --context {most} does not hold"
        )
    if not ids:
        raise InputError(f"{path}: the chat template makes no text of the message")
    return ids


def _pieces(opened: Opened, session: Session, ids: list[int], how: How, timing: Timing) -> Iterator[str]:
    new = session.rest(ids)
    tokens = generate(session, new, how.limit, how.sampler, opened.stop, timing, list(session.tokens))
    return until(stream_text(opened.tokenizer, tokens), how.stop)


def _print_all(pieces: Iterator[str]) -> str:
    text = ""
    for piece in pieces:
        text += piece
        print(piece, end="", flush=True)
    return text


def _show(opened: Opened, ids: list[int], prompt: str, how: How, as_json: bool) -> None:
    """Print one text and, on stderr, its speed; or all of that as JSON."""
    timing = Timing()
    pieces = _pieces(opened, Session(opened.decoder), ids, how, timing)
    text = "".join(pieces) if as_json else _print_all(pieces)
    decode_rate = (len(timing.tokens) - 1) / timing.seconds if timing.seconds else 0.0
    if as_json:
        print_json(
            {
                "engine": opened.engine,
                "prompt": prompt,
                "text": text,
                "tokens": timing.tokens,
                "prompt_tokens": timing.prompt_tokens,
                "prompt_seconds": timing.prompt_seconds,
                "decode_tokens_per_second": decode_rate,
            }
        )
        return
    print(flush=True)
    warn(
        f"{opened.engine}: {timing.prompt_tokens} tokens read at "
        f"{_shown(timing.prompt_tokens / timing.prompt_seconds)}/s, "
        f"{len(timing.tokens)} generated at {_shown(decode_rate)}/s"
    )


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
