"""A process that measures models: one, so that the peak of memory is its own, or several in turns (``worker``).

``python -m edgeq.bench.child`` reads a ``Job`` as JSON from each line of standard input and writes a ``Measurement``,
or ``{"error": ...}``, as a line of JSON to standard output; what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeq.bench import engines
from edgeq.bench.sensors import Sensors
from edgeq.errors import EdgeqError, FallbackWarning, InputError
from edgeq.peak_memory import peak_memory
from edgeq.runtimes.engines import EngineName

_SEED = 0
_WARMING = 3  # tokens
_LONGEST_FIRST_ID = 4000  # every vocabulary has these, and none of the special ones at the end


@dataclass(frozen=True)
class Job:
    """What to measure: ``prompt`` and ``gen`` are tokens, ``repeat`` turns count after a short one that warms up."""

    path: str
    engine: EngineName
    threads: int
    prompt: int
    gen: int
    repeat: int
    cpu_time: bool = False  # of the process, for one thread on a machine that others load


@dataclass
class Measurement:
    """Seconds of each turn. ``steps`` are of every generated token; without generation they and ``decode`` are empty.

    ``prefill`` is reading the prompt (an encoder's text, a graph's run); ``load`` ends before the first of them.
    """

    kind: str
    load: float
    warm_up: float
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    peak_memory: int = 0
    notes: list[str] = field(default_factory=list)  # such as that a provider is not there
    joules: list[float | None] = field(default_factory=list)
    degrees: tuple[float | None, float | None] = (None, None)
    megahertz: tuple[float | None, float | None] = (None, None)


def measure(job: Job) -> Measurement:
    """Open the model and take the turns; raises EdgeqError."""
    engines.load_all()
    sensors, clock = Sensors(), time.process_time if job.cpu_time else time.perf_counter
    started = clock()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        subject = engines.OPENERS[job.engine](Path(job.path), job.threads, job.prompt + job.gen)
    found = Measurement(subject.kind, clock() - started, 0.0)
    found.notes = [str(one.message) for one in caught if issubclass(one.category, FallbackWarning)]
    steps = job.gen if subject.kind == "decoder" else 0
    tokens = _tokens(job.prompt + steps, subject.vocab)
    first = sensors.read()
    for turn in range(job.repeat + 1):
        before = sensors.read()
        following = tokens[job.prompt :] if turn else tokens[job.prompt :][:_WARMING]
        read, each = _turn(subject, tokens[: job.prompt], following, clock)
        after = sensors.read()
        if not turn:  # kernels are compiled, pages are read
            found.warm_up = read + sum(each)
            continue
        found.prefill.append(read)
        if each:
            found.decode.append(sum(each))
            found.steps += each
        found.joules.append(sensors.joules_between(before, after))
    found.degrees = first.degrees, after.degrees
    found.megahertz = first.megahertz, after.megahertz
    found.peak_memory = peak_memory()
    return found


def _turn(
    subject: engines.Subject, prompt: Sequence[int], following: Sequence[int], clock: Callable[[], float]
) -> tuple[float, list[float]]:
    """Seconds of reading the prompt, and of each token after it."""
    started = clock()
    subject.read(prompt)
    read = clock() - started
    each = []
    for token in following:
        started = clock()
        subject.step(token)
        each.append(clock() - started)
    return read, each


def _tokens(count: int, vocab: int) -> list[int]:
    """Tokens that are the same every time; what they say does not change how long they take."""
    import random

    below = max(2, min(vocab, _LONGEST_FIRST_ID))
    numbers = random.Random(_SEED)
    return [numbers.randrange(1, below) for _ in range(count)]


def main() -> None:
    """Measure the jobs of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to standard error
    for line in sys.stdin:
        answers.write(json.dumps(_answer(Job(**json.loads(line)))) + "\n")
        answers.flush()


def _answer(job: Job) -> dict[str, Any]:
    try:
        return asdict(measure(job))
    except EdgeqError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": str(InputError(f"{job.path}: out of memory with {job.engine}"))}


if __name__ == "__main__":
    main()
