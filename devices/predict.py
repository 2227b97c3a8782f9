"""How fast a model runs on a machine. The formula and its error are on one page: docs/prediction.md."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.devices.classes import defaults
from edgeq.devices.machine import Machine
from edgeq.devices.work import Product, Work

BATCH = 512  # positions that llama.cpp reads at a time (n_ubatch)
RATED_COLUMNS = 2048  # weights in a row of the matrices that rates are measured with


@dataclass(frozen=True)
class Speed:
    """Tokens per second: the prediction, and what eight of ten published speeds lie between."""

    tokens_per_second: float
    low: float
    high: float


def decode_speed(work: Work, machine: Machine, depth: int) -> Speed:
    """Generating one token after ``depth`` others."""
    return speed_of(1.0, decode_seconds(work, machine, depth), machine.measured)


def prefill_speed(work: Work, machine: Machine, tokens: int) -> Speed:
    """Reading a prompt of so many tokens."""
    return speed_of(tokens, prefill_seconds(work, machine, tokens), machine.measured)


def decode_seconds(work: Work, machine: Machine, depth: int) -> float:
    """Seconds for one token: every product, the cache of ``depth`` positions, and the waiting in each layer."""
    cache = work.cache_values(depth) * work.cache_bytes / (machine.read_gbs * 1e9)
    products = sum(_seconds(product, machine, 1) for product in work.products)
    return products + cache + work.layers * machine.waiting


def prefill_seconds(work: Work, machine: Machine, tokens: int) -> float:
    """Seconds for a prompt, in batches of 512."""
    each = [product for product in work.products if not product.last_only]
    last = [product for product in work.products if product.last_only]
    seconds = sum(_seconds(product, machine, 1) for product in last)
    for start in range(0, tokens, BATCH):
        rows = min(BATCH, tokens - start)
        attention = pairs_operations(work, start, rows) / (machine.prefill["F16"] * 1e9)
        products = sum(_seconds(product, machine, rows) for product in each)
        seconds += products + attention + work.layers * machine.waiting
    return seconds


def pairs_operations(work: Work, start: int, rows: int) -> float:
    """Of attention, of so many positions after ``start``: queries meet all keys before them, and scores all values."""
    return 4 * work.attention * work.layers * rows * (start + rows / 2)


def _seconds(product: Product, machine: Machine, rows: int) -> float:
    """The slowest of reading the weights, taking their codes apart (once for all rows) and multiplying.

    Besides, what each row of weights costs beyond its weights, where rows are shorter than those that the rates were
    measured with.
    """
    touched = min(1.0, product.share * rows)  # many rows use all experts
    name = product.type_name
    each = rows * (machine.row_seconds if rows == 1 else machine.many_row_seconds).get(name, 0.0)
    return short_rows(product) * product.share * each + max(
        touched * product.nbytes / (machine.read_gbs * 1e9),
        touched * product.weights / (machine.decode[name] * 1e9),
        2 * product.share * product.weights * rows / (machine.prefill[name] * 1e9) if rows > 1 else 0.0,
    )


def short_rows(product: Product) -> float:
    """Rows of weights beyond those that as many weights would have in rows of ``RATED_COLUMNS``."""
    return max(0.0, product.rows - product.weights / RATED_COLUMNS)


def speed_of(tokens: float, seconds: float, measured: bool) -> Speed:
    """So many tokens in so many seconds, with the range: a wider one where nobody measured the device."""
    known, speed = defaults(), tokens / seconds
    low, high = known.measured_range if measured else known.unmeasured_range
    return Speed(speed, speed * low, speed * high)
