"""How fast a model answers in its runtime, and with how much memory and energy, on the text that is evaluated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeq.bench.sensors import Sensors
from edgeq.evaluation.opening import Evaluated
from edgeq.evaluation.proof import DecoderRuntime, EncoderRuntime
from edgeq.peak_memory import peak_memory

_READS, _STEPS = 3, 32  # windows read and tokens generated, after one of each that warms up
_SENTENCES = 64


def measure_decoder(opened: Evaluated, tokens: Sequence[int]) -> dict[str, Any]:
    """Reading a window of tokens several times, then generating greedily after it.

    To be called before another model is opened, for memory. ``latency_*`` are seconds of one generated token;
    ``peak_memory_bytes`` is that of the process that holds the model. Joules are all processor packages', so of
    everything on the machine; None where they cannot be read.
    """
    runtime = opened.decoder
    first = max(0, len(tokens) - 1)  # logits of the last token only, as for a prompt
    token = int(runtime.window(tokens, first)[-1].argmax())
    runtime.step(token)
    sensors = Sensors()
    before = sensors.read()
    reads = [_timed(partial(runtime.window, tokens, first))[0] for _ in range(_READS)]
    between = sensors.read()
    steps = []
    for _ in range(_STEPS):
        seconds, logits = _timed(partial(runtime.step, token))
        token = int(np.argmax(logits))
        steps.append(seconds)
    after = sensors.read()
    return {
        "load_seconds": opened.runtime.load_seconds,
        "prefill_tokens": len(tokens),
        "prefill_tokens_per_second": len(tokens) / statistics.median(reads),
        "decode_tokens_per_second": 1 / statistics.median(steps),
        **_latency(steps),
        "joules_per_token_read": _each(sensors.joules_between(before, between), _READS * len(tokens)),
        "joules_per_token": _each(sensors.joules_between(between, after), _STEPS),
        "peak_memory_bytes": memory_of(opened.runtime),
    }


def measure_encoder(
    opened: Evaluated, lines: Sequence[str], answer: Callable[[str, list[int]], object]
) -> dict[str, Any]:
    """The same of a model that reads sentences, one at a time; ``latency_*`` are seconds of one sentence."""
    tokenizer = opened.tokenizer
    tokenizer.enable_truncation(opened.longest)
    sentences = [(line, tokenizer.encode(line).ids) for line in lines[:_SENTENCES]]
    answer(*sentences[0])
    sensors = Sensors()
    before = sensors.read()
    seconds = [_timed(partial(answer, *one))[0] for one in sentences]
    after = sensors.read()
    return {
        "load_seconds": opened.runtime.load_seconds,
        "sentences_per_second": 1 / statistics.median(seconds),
        **_latency(seconds),
        "joules_per_sentence": _each(sensors.joules_between(before, after), len(sentences)),
        "peak_memory_bytes": memory_of(opened.runtime),
    }


def memory_of(runtime: DecoderRuntime | EncoderRuntime) -> int:
    """The most memory that the process with the model held, in bytes: llama.cpp has one of its own."""
    own: Callable[[], int] = getattr(runtime, "peak_memory", peak_memory)
    return own()


def _latency(seconds: Sequence[float]) -> dict[str, Any]:
    """The median and the 95th percentile, how far the values spread (half the middle two quarters), how many."""
    low, p50, high, p95 = np.quantile(seconds, [0.25, 0.5, 0.75, 0.95]).tolist()
    return {
        "latency_p50": p50,
        "latency_p95": p95,
        "latency_spread": (high - low) / 2,
        "latency_count": len(seconds),
    }


def _each(joules: float | None, count: int) -> float | None:
    return None if joules is None else joules / count


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found
