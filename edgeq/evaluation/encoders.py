"""An encoder's vectors beside a reference's: how close they are, and whether a search finds the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, InputError
from edgeq.evaluation.metrics import cosines
from edgeq.evaluation.statistics import mean_with_error, percentiles, standard_error

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeq.evaluation.proof import EncoderRuntime

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]

NEIGHBOURS = (1, 5, 10)
_MOST_SENTENCES = 4096  # whose similarities to each other fit in memory
_GROUPS = 10  # of the jackknife
_COSINE_PERCENTILES = (1, 5, 50)


def embeddings(
    runtime: EncoderRuntime,
    tokenizer: Tokenizer,
    longest: int,
    lines: Sequence[str],
    progress: Progress = lambda done, total: None,
) -> Floats:
    """Vectors ``[len(lines), C]`` of unit length; what a model cannot read of a long line is left out."""
    tokenizer.enable_truncation(longest)
    rows = []
    for done, line in enumerate(lines, start=1):
        rows.append(runtime.embed(line, tokenizer.encode(line).ids))
        progress(done, len(lines))
    vectors = np.stack(rows)
    if not np.isfinite(vectors).all():
        raise EdgeqError(f"{runtime.name} gives vectors that are no numbers: the model's weights are damaged")
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return unit


def compare_vectors(reference: Floats, candidate: Floats, lines: Sequence[str]) -> dict[str, float]:
    """Cosines of each sentence's two vectors; then each model's own similarities between the sentences.

    ``overlap_K``: of the K sentences that the reference finds nearest to a sentence, the share that the candidate finds
    among its K nearest; ``spearman``: the rank correlation of all similarities of two sentences (ties get their mean
    rank, as in SciPy's ``spearmanr``). Equal lines count once there. Raises InputError for fewer than three lines.
    """
    values = cosines(reference, candidate)
    found = {
        "sentences": len(values),
        **mean_with_error(values, "cosine"),
        "cosine_min": float(values.min()),
        **percentiles(values, "cosine", _COSINE_PERCENTILES),
    }
    distinct = np.sort(np.unique(np.asarray(lines), return_index=True)[1])[:_MOST_SENTENCES]
    if len(distinct) < 3:
        raise InputError(
            f"{len(distinct)} different sentences cannot be searched; give at least three, one a line"
        )
    a, b = (vectors[distinct] @ vectors[distinct].T for vectors in (reference, candidate))
    return found | _overlaps(a, b) | _spearman(a, b)


def _overlaps(a: Floats, b: Floats) -> dict[str, float]:
    found: dict[str, float] = {}
    for count in NEIGHBOURS:
        if count < len(a) - 1:
            shares = _overlap(a, b, count)
            found[f"overlap_{count}"] = float(shares.mean())
            found[f"overlap_{count}_standard_error"] = standard_error(shares)
    return found


def _overlap(a: Floats, b: Floats, count: int) -> NDArray[np.float64]:
    nearest = []
    for similarities in (a, b):
        others = similarities.copy()
        np.fill_diagonal(others, -np.inf)
        nearest.append(np.argpartition(others, -count, axis=1)[:, -count:])
    same = nearest[0][:, :, None] == nearest[1][:, None, :]
    shares: NDArray[np.float64] = same.any(axis=2).mean(axis=1)
    return shares


def _spearman(a: Floats, b: Floats) -> dict[str, float]:
    """Over all pairs, and its standard error by the jackknife: groups of sentences left out in turn (Efron, 1982)."""
    groups = np.array_split(np.arange(len(a)), min(_GROUPS, len(a) - 2))
    every = np.arange(len(a))
    without = [_rank_correlation(a, b, np.setdiff1d(every, group)) for group in groups]
    spread = np.square(np.asarray(without) - np.mean(without)).mean() * (len(groups) - 1)
    return {"spearman": _rank_correlation(a, b, every), "spearman_standard_error": float(np.sqrt(spread))}


def _rank_correlation(a: Floats, b: Floats, chosen: NDArray[np.int64]) -> float:
    pairs = np.triu_indices(len(chosen), 1)
    one, other = (mean_ranks(values[np.ix_(chosen, chosen)][pairs]) for values in (a, b))
    if not (np.ptp(one) and np.ptp(other)):
        return 1.0 if np.array_equal(one, other) else 0.0
    return float(np.corrcoef(one, other)[0, 1])


def mean_ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks from 0 on; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts + 1) / 2)[places]
    return ranks
