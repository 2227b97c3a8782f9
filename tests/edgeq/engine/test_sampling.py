"""Choosing tokens: the sets that top-k and top-p leave, the distribution, and the seed."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.engine.sampling import Sampler
from edgeq.errors import UsageError

PROBABILITIES = np.array([0.05, 0.4, 0.15, 0.1, 0.3])
LOGITS = np.log(PROBABILITIES).astype(np.float32)
DRAWS = 4000


def _frequencies(sampler: Sampler, logits: np.ndarray = LOGITS) -> np.ndarray:
    return np.bincount([sampler.pick(logits) for _ in range(DRAWS)], minlength=len(logits)) / DRAWS


def _close(frequencies: np.ndarray, expected: np.ndarray) -> bool:
    """Within five standard errors of every probability; what has none is never drawn."""
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    return bool((np.abs(frequencies - expected) <= 5 * error).all())


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    assert Sampler().pick(LOGITS) == 1
    assert Sampler(top_k=3, top_p=0.1, seed=9).pick(np.array([0, 2, 2], np.float32)) == 1


def test_temperature_one_draws_the_model_distribution() -> None:
    assert _close(_frequencies(Sampler(temperature=1)), PROBABILITIES)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_sharpens_or_flattens(temperature: float) -> None:
    expected = PROBABILITIES ** (1 / temperature)
    assert _close(_frequencies(Sampler(temperature)), expected / expected.sum())


def test_top_k_keeps_the_k_likeliest() -> None:
    expected = np.where(PROBABILITIES >= 0.3, PROBABILITIES, 0)
    assert _close(_frequencies(Sampler(1, top_k=2)), expected / expected.sum())
    assert set(np.flatnonzero(_frequencies(Sampler(5, top_k=1)))) == {1}
    assert _close(_frequencies(Sampler(1, top_k=99)), PROBABILITIES)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [1]), (0.39, [1]), (0.41, [1, 4]), (0.71, [1, 4, 2]), (0.96, [0, 1, 2, 3, 4])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]) -> None:
    expected = np.zeros(5)
    expected[kept] = PROBABILITIES[kept]
    assert _close(_frequencies(Sampler(1, top_p=top_p)), expected / expected.sum())


def test_top_p_reads_the_distribution_that_top_k_left() -> None:
    # Of the two likeliest, 0.4 and 0.3, the first alone has 0.57.
    assert set(np.flatnonzero(_frequencies(Sampler(1, top_k=2, top_p=0.5)))) == {1}


def test_a_seed_fixes_the_text() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(1, seed=seed)
        return [sampler.pick(LOGITS) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_extreme_logits_neither_overflow_nor_warn(recwarn: pytest.WarningsRecorder) -> None:
    logits = np.array([3e4, -3e4, 1e4, -np.inf], np.float32)
    assert {Sampler(0.01).pick(logits), Sampler(0.01, top_p=0.9).pick(logits)} == {0}
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"temperature": float("inf")},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("nan")},
    ],
)
def test_impossible_options_are_usage_errors(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Sampler(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 5), (0.2, 4), (0.3, 3), (0.7, 2), (1.0, 1)])
def test_min_p_keeps_what_is_likely_beside_the_likeliest(min_p: float, kept: int) -> None:
    expected = np.zeros(5)
    best = np.argsort(-PROBABILITIES)[:kept]
    expected[best] = PROBABILITIES[best]
    assert _close(_frequencies(Sampler(1, min_p=min_p)), expected / expected.sum())


def test_a_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = np.array([2.0, 1.9, -1.0, -1.1], np.float32)
    assert Sampler(repetition_penalty=1.2).pick(logits) == 0
    assert Sampler(repetition_penalty=1.2).pick(logits, [0]) == 1
    assert Sampler(repetition_penalty=1.2).pick(logits, [0, 1, 1]) == 0
    assert Sampler(repetition_penalty=4.0).pick(logits[2:], [0]) == 1
    assert logits.tolist() == np.array([2.0, 1.9, -1.0, -1.1], np.float32).tolist()
