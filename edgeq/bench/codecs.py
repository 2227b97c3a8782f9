"""Speed of the encoders and decoders, and the encoders' error, beside ggml's on as many threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeq.bench.timing import Call, median_seconds
from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import BlockType, all_types, by_name
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.roofs import fill
from edgeq.runtimes import ggml

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """What is measured: Gaussian values ``[rows, columns]``, under random importance or without."""

    types: Sequence[str] = ()
    rows: int = 1024
    columns: int = 2048
    importance: bool = False
    effort: Effort = Effort.ggml
    repeats: int = 5


@dataclass(frozen=True)
class Figures:
    """One line of the table. Rates in million values a second; a peer that is absent has None.

    ``peer`` is ggml for encoding, and writing as many floats to memory for decoding. ``error`` is our weighted
    squared error over ggml's; ``same_bytes`` whether the bytes are ggml's.
    """

    type_name: str
    operation: Literal["encode", "decode"]
    rate: float
    peer: str
    peer_rate: float | None
    ratio: float | None
    error: float | None = None
    same_bytes: bool | None = None


def measure(options: Options) -> Iterator[Figures]:
    """Encode and decode each type; all that edgeq has where none is named. Raises EdgeqError for a name it has not."""
    types = [by_name(name) for name in options.types] or all_types()
    rng = np.random.default_rng(0)
    values = rng.standard_normal((options.rows, options.columns)).astype(np.float32) * np.float32(0.02)
    importance = rng.exponential(size=options.columns).astype(np.float32) if options.importance else None
    for block_type in types:
        block_type.row_bytes(options.columns)  # before any work: an indivisible row is an error
    for block_type in types:
        if block_type.encodes:
            yield _encoding(block_type, values, importance, options)
        yield _decoding(block_type, values, options)


def _encoding(
    block_type: type[BlockType], values: Floats, importance: Floats | None, options: Options
) -> Figures:
    name, isa = block_type.name, instruction_set()

    def ours() -> Bytes:
        return encode(name, values, importance, isa, options.effort)

    with ThreadPoolExecutor(threads.get_threads()) as pool:

        def theirs() -> Bytes:
            parts = np.array_split(values, threads.get_threads())
            return np.concatenate(list(pool.map(lambda part: ggml.quantize(name, part, importance), parts)))

        there = ggml.library() is not None
        rates = _rates([ours, theirs if there else None], values.size, options.repeats)
        a, b = ours(), theirs() if there else None
    return Figures(
        name,
        "encode",
        *_compared(rates, "ggml"),
        error=None if b is None else _error_ratio(block_type, values, importance, a, b),
        same_bytes=None if b is None else bool(np.array_equal(a, b)),
    )


def _error_ratio(
    block_type: type[BlockType], values: Floats, importance: Floats | None, a: Bytes, b: Bytes
) -> float | None:
    """Σ importance · (x − x̂)² of a over that of b; None where b is exact."""

    def error(coded: Bytes) -> float:
        difference = (block_type.decode(coded, values.shape[1]) - values).astype(np.float64)
        return float(np.sum(difference**2 * (1.0 if importance is None else importance)))

    return error(a) / error(b) if error(b) else None


def _decoding(block_type: type[BlockType], values: Floats, options: Options) -> Figures:
    name, isa, columns = block_type.name, instruction_set(), values.shape[1]
    if block_type.encodes:
        rows = encode(name, values, None, isa)
    else:  # any bytes take as long, NaN scales too
        shape = (len(values), block_type.row_bytes(columns))
        rows = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

    def write_floats() -> None:  # fresh memory, as decode's
        threads.run(fill, values.size, 1, np.empty(values.size, np.float32))

    calls: list[Call | None] = [lambda: decode(name, rows, columns, isa), write_floats]
    return Figures(name, "decode", *_compared(_rates(calls, values.size, options.repeats), "writing floats"))


def _rates(calls: Sequence[Call | None], n_values: int, repeats: int) -> list[float | None]:
    return [seconds and n_values / seconds / 1e6 for seconds in median_seconds(calls, repeats)]


def _compared(rates: list[float | None], peer: str) -> tuple[float, str, float | None, float | None]:
    rate, peer_rate = rates
    assert rate is not None
    return rate, peer, peer_rate, peer_rate and rate / peer_rate
