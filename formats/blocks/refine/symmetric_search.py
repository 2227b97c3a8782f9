"""Searches for the types of x ≈ scale · level(code), without a minimum: their scales, by true squared error.

Arrays are ``[values, blocks, subs]``: value i of each sub-block of each block, so that a sum over the first
axis runs in the order of the values and one over the last is folded in halves, both as in the kernels, whose
parameters are these to the bit. Codes are never kept: the nearest ones to a scale are the best for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.search import ordered_sum

Levels = Callable[[Floats], Floats]  # the nearest level to each value

# An error below this part of the other's is lower indeed, and not by the rounding of its float32 sum.
LOWER = np.float32(1 - 2**-16)
_ONE = np.float32(1)
_SMALLEST = np.float32(1e-30)  # a scale that has an inverse


def floats(*values: float) -> Floats:
    """A search's multiples."""
    return np.array(values, np.float32)


def grid(low: float, high: float, n: int, both_signs: bool = False) -> Floats:
    """n multiples from low to high, each a constant part above the last; and their negatives."""
    multiples = np.geomspace(low, high, n).astype(np.float32)
    return np.concatenate([multiples, -multiples]) if both_signs else multiples


def rounds(*windows: int) -> NDArray[np.int64]:
    """A search's windows."""
    return np.array(windows, np.int64)


class Search(NamedTuple):
    """How hard to look. The same types for every effort: one compiled kernel serves them all.

    A type's few factors are those that, each beside the ones before it, lowered the error most on Gaussian,
    Laplacian and trained values; with importance they spread wider, for the largest value may weigh little.
    """

    factors: Floats  # multiples of each sub-block's (or block's) scale that are tried
    windows: NDArray[np.int64]  # a round each, least squares in between: how far it looks for scale codes
    peaks: Floats = floats(1)  # the largest scale in units of d, as parts of the lowest scale code
    starts: Floats = floats(1)  # multiples of the d found so that are tried


def uniform(low: int, high: int) -> Levels:
    """The integers low..high as levels."""
    lowest, highest = np.float32(low), np.float32(high)
    return lambda x: np.asarray(np.rint(np.clip(x, lowest, highest)))


def half(x: Floats) -> Floats:
    """Rounded to float16; what overflows is infinite, and loses every comparison."""
    return x.astype(np.float16).astype(np.float32)


def in_columns(blocks: Floats, subs: int) -> Floats:
    """``[n, block_values]`` to ``[values of a sub-block, n, subs]``."""
    return np.ascontiguousarray(blocks.reshape(len(blocks), subs, -1).transpose(2, 0, 1))


def inverse_of(scale: Floats) -> Floats:
    """1 / scale, and 0 for scales next to zero, for which every value is."""
    return np.where(np.abs(scale) > _SMALLEST, _ONE / scale, np.float32(0))


def error_of(x: Floats, weights: Floats, levels: Levels, scale: Floats) -> Floats:
    """Σ w·(x − scale · level)² for the levels nearest to x / scale, each like the scale."""
    residual = x - scale * levels(x * inverse_of(scale))
    return ordered_sum(weights * residual * residual)


def moments(x: Floats, weights: Floats, levels: Levels, scale: Floats) -> tuple[Floats, Floats]:
    """Σ w·x·level and Σ w·level² for those levels: their ratio is the best scale for them."""
    nearest = levels(x * inverse_of(scale))
    return ordered_sum(weights * x * nearest), ordered_sum(weights * nearest * nearest)


def ratio(a: Floats, b: Floats) -> Floats:
    """a / b, and 0 where b is."""
    return np.where(b > 0, a / b, np.float32(0))


def folded(terms: Floats) -> Floats:
    """Sum over the last axis, a power of two: the upper half is added to the lower one until one is left."""
    while terms.shape[-1] > 1:
        middle = terms.shape[-1] // 2
        terms = terms[..., :middle] + terms[..., middle:]
    return terms[..., 0]


def search_scale(
    x: Floats, weights: Floats, levels: Levels, d: Floats, search: Search
) -> tuple[NDArray[np.bool_], Floats]:
    """Look for a better d ``[n]`` of blocks with no other scale; where it was found, and d.

    Tries multiples of the encoder's d, solves least squares for each one's codes, and repeats that on the best.
    """

    def folded_moments(d: Floats) -> tuple[Floats, Floats]:
        a, b = moments(x, weights, levels, d[:, None])
        return folded(a), folded(b)

    limit = folded(error_of(x, weights, levels, d[:, None])) * LOWER
    ideal, gain = d, np.zeros_like(d)
    for factor in search.factors:
        a, b = folded_moments(d * factor)
        better = ratio(a, b) * a > gain
        gain, ideal = np.where(better, ratio(a, b) * a, gain), np.where(better, ratio(a, b), ideal)
    best, best_d = limit, d
    for i in range(len(search.windows)):
        if i:
            ideal = ratio(*folded_moments(ideal))
        ideal = half(ideal)
        error = folded(error_of(x, weights, levels, ideal[:, None]))
        better = (error < best) & np.isfinite(ideal)
        best, best_d = np.where(better, error, best), np.where(better, ideal, best_d)
    return (best < limit) & np.isfinite(limit), best_d


def refine_scale(
    values: Floats,
    weights: Floats,
    blocks: Bytes,
    at: int,
    subs: int,
    levels: Levels,
    search: Search,
    pack: Callable[[NDArray[np.float16], Floats], Bytes],
) -> Bytes:
    """``refine_blocks`` of a type whose only scale d stands at a byte of its block.

    ``pack`` makes blocks of d and the values in units of d; ``subs`` is how the sums are split (see ``folded``).
    """
    d = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")[:, 0].astype(np.float32)
    x, columns = in_columns(values, subs), in_columns(weights, subs)
    better, found = search_scale(x, columns, levels, d, search)
    packed = pack(found.astype(np.float16), values * inverse_of(found)[:, None])
    return np.where(better[:, None], packed, blocks)


def refine_scales(
    values: Floats,
    weights: Floats,
    blocks: Bytes,
    levels: Levels,
    span: tuple[int, int],
    d: Floats,
    codes: Floats,
    search: Search,
    pack: Callable[[NDArray[np.float16], Floats, Floats], Bytes],
) -> Bytes:
    """``refine_blocks`` of super-blocks with d ``[n]`` and scale codes ``[n, subs]``.

    ``pack`` makes blocks of d, scale codes and the values in units of their scales ``[n, subs, values]``.
    """
    subs = codes.shape[1]
    x, columns = in_columns(values, subs), in_columns(weights, subs)
    better, d, codes = search_scales(x, columns, levels, span, d, codes, search)
    inverse = inverse_of(d[:, None] * codes)
    packed = pack(d.astype(np.float16), codes, values.reshape(*codes.shape, -1) * inverse[..., None])
    return np.where(better[:, None], packed, blocks)


def search_scales(
    x: Floats,
    weights: Floats,
    levels: Levels,
    span: tuple[int, int],
    d: Floats,
    codes: Floats,
    search: Search,
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Look for better d ``[n]`` and scale codes ``[n, subs]``, whole numbers in ``span``, of super-blocks.

    First the scale that each sub-block would have alone; then the d whose multiples these are most nearly;
    then rounds in which each sub-block chooses among neighbouring scale codes, and d is solved for by least
    squares. Returns where something better was found, d and codes.
    """
    scale = d[:, None] * codes
    limit = folded(error_of(x, weights, levels, scale)) * LOWER
    ideal, curvature = _ideal_scales(x, weights, levels, scale, search)
    common = _common_scale(ideal, curvature, span, search)
    best, best_d, best_codes = limit, d, codes
    for start in search.starts:
        trial_d = half(common * start)
        trial = _nearest_codes(ideal, trial_d, span)
        for i, window in enumerate(search.windows):
            if i:
                a, b = moments(x, weights, levels, trial_d[:, None] * trial)
                trial_d = half(ratio(folded(a * trial), folded(b * trial * trial)))
            trial, errors = _best_neighbours(x, weights, levels, span, trial_d, trial, int(window))
            error = folded(errors)
            better = (error < best) & np.isfinite(trial_d)
            best, best_d = np.where(better, error, best), np.where(better, trial_d, best_d)
            best_codes = np.where(better[:, None], trial, best_codes)
    return (best < limit) & np.isfinite(limit), best_d, best_codes


def _ideal_scales(
    x: Floats, weights: Floats, levels: Levels, scale: Floats, search: Search
) -> tuple[Floats, Floats]:
    """Each sub-block's best scale and its Σ w·level², by which an error of the scale weighs."""
    ideal, gain, curvature = scale, np.zeros_like(scale), np.zeros_like(scale)
    for factor in search.factors:
        a, b = moments(x, weights, levels, scale * factor)
        better = ratio(a, b) * a > gain
        gain = np.where(better, ratio(a, b) * a, gain)
        ideal, curvature = np.where(better, ratio(a, b), ideal), np.where(better, b, curvature)
    return ideal, curvature


def _common_scale(ideal: Floats, curvature: Floats, span: tuple[int, int], search: Search) -> Floats:
    """The d whose multiples come nearest to the ideal scales, an error weighing as the curvature says."""
    largest = np.abs(ideal).max(axis=1)
    best, best_d = np.zeros_like(largest), np.zeros_like(largest)
    for peak in search.peaks:
        codes = _nearest_codes(ideal, largest / (np.float32(span[0]) * peak), span)
        weighted = curvature * codes
        product, square = folded(weighted * ideal), folded(weighted * codes)
        trial = ratio(product, square)
        better = trial * product > best
        best, best_d = np.where(better, trial * product, best), np.where(better, trial, best_d)
    return np.asarray(best_d)


def _nearest_codes(scale: Floats, d: Floats, span: tuple[int, int]) -> Floats:
    low, high = np.float32(span[0]), np.float32(span[1])
    return np.asarray(np.rint(np.clip(scale * inverse_of(d)[:, None], low, high)))


def _best_neighbours(
    x: Floats,
    weights: Floats,
    levels: Levels,
    span: tuple[int, int],
    d: Floats,
    codes: Floats,
    window: int,
) -> tuple[Floats, Floats]:
    """Of each sub-block's codes within the window, the one of least error, and the errors."""
    best, error = codes, error_of(x, weights, levels, d[:, None] * codes)
    for step in range(1, window + 1):
        for move in (step, -step):
            moved = np.clip(codes + np.float32(move), np.float32(span[0]), np.float32(span[1]))
            trial = error_of(x, weights, levels, d[:, None] * moved)
            better = trial < error
            best, error = np.where(better, moved, best), np.where(better, trial, error)
    return np.asarray(best), error
