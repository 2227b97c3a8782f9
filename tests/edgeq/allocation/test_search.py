"""Meeting a goal, on a made-up model whose KL is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgeq.allocation.candidates import candidates
from edgeq.allocation.search import Goal, Problem, search
from edgeq.allocation.sensitivity import Sensitivity
from edgeq.errors import GateError

NAMES = [f"blk.{layer}.{role}.weight" for layer in range(8) for role in ("attn_q", "ffn_down", "ffn_up")]
SHAPES = {name: (512, 1024 if "ffn" in name else 512) for name in NAMES}
KINDS = ("Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q8_0")
FIXED = 10_000


def problem(truth: float = 1.0) -> Problem:
    """Losses fall with the bits; the measured KL is ``truth`` times what is predicted, and a little more."""
    rng = np.random.default_rng(0)
    factors = dict(zip(NAMES, rng.lognormal(-4, 1, len(NAMES)), strict=True))
    losses = {name: {kind: factors[name] * 4.0 ** -int(kind[1]) for kind in KINDS} for name in NAMES}
    known = Sensitivity(losses, {}, "Q3_K")

    def measure(types: Mapping[str, str]) -> dict[str, float]:
        return {"loss": truth * known.of(types) ** 1.05}

    options = candidates(SHAPES.items(), KINDS)
    seconds = {kind: 1e-9 * int(kind[1]) for kind in KINDS}
    return Problem(
        options, known, FIXED, lambda name, kind: seconds[kind] * np.prod(SHAPES[name]), 1e-3, measure
    )


def test_a_size_is_kept_and_beats_one_type_for_all() -> None:
    for kind in KINDS[1:-1]:
        made = problem()
        uniform = made.point(dict.fromkeys(NAMES, kind))
        found = search(made, Goal(nbytes=uniform.nbytes)).chosen
        assert found.nbytes <= uniform.nbytes
        assert found.predicted_loss < uniform.predicted_loss


@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_a_quality_is_met_by_nearly_the_smallest_file(truth: float) -> None:
    made = problem(truth)
    least, most = (made.measure(dict.fromkeys(NAMES, kind))["loss"] for kind in ("Q8_0", "Q2_K"))
    goal = float(np.sqrt(least * most))
    found = search(made, Goal(loss=goal))
    assert found.chosen.measured is not None
    assert 0.8 * goal <= found.chosen.loss <= goal
    assert len(found.tried) <= 7
    for point in found.tried:  # none that was tried is better
        assert point.loss > goal or point.nbytes >= found.chosen.nbytes


def test_a_loose_quality_is_the_smallest_file() -> None:
    made = problem()
    assert set(search(made, Goal(loss=1.0)).chosen.types.values()) == {"Q2_K"}


def test_a_speed_is_kept_together_with_a_size() -> None:
    made = problem()
    limit = made.point(dict.fromkeys(NAMES, "Q4_K"))
    found = search(made, Goal(nbytes=1.2 * limit.nbytes, seconds=limit.seconds)).chosen
    assert found.seconds <= limit.seconds
    assert found.nbytes <= 1.2 * limit.nbytes
    assert found.predicted_loss < limit.predicted_loss


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (Goal(nbytes=1000), "no choice of these types has 1,000 bytes"),
        (Goal(loss=1e-12), "no choice of these types has a loss of 1e-12: the best that fits has a loss of"),
        (Goal(seconds=1e-4), "no choice of these types generates 10000.0 tokens/s"),
        (Goal(loss=1e-3, nbytes=1000), "no choice of these types has 1,000 bytes"),
    ],
)
def test_what_is_impossible_is_said_with_the_closest(goal: Goal, words: str) -> None:
    with pytest.raises(GateError, match=words) as caught:
        search(problem(), goal)
    assert "\n" not in str(caught.value)


def test_the_front_falls() -> None:
    front = search(problem(), Goal(nbytes=4_000_000)).front
    assert len(front) >= 8
    sizes, losses = [point.nbytes for point in front], [point.predicted_loss for point in front]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)
