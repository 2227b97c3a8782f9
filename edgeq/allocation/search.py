"""From a goal to the types of all tensors: predict, choose, measure, correct the prediction until the goal holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

import numpy as np

from edgeq.allocation.candidates import Candidate
from edgeq.allocation.choose import Chosen, Table, choose
from edgeq.allocation.sensitivity import Sensitivity
from edgeq.errors import GateError

_ROUNDS = 6
_NEAR = 0.93  # a quality goal is met well when this share of what it allows is used
_FRONT = 12  # points on the front
Types = dict[str, str]
Seconds = Callable[[str, str], float]  # (tensor, type) → what it adds to the time of one token


@dataclass(frozen=True)
class Goal:
    """What shall hold: bytes of the whole file, seconds of one token, the loss; infinite where nobody asked."""

    nbytes: float = inf
    seconds: float = inf
    loss: float = inf


@dataclass(frozen=True)
class Point:
    """One choice of types: what it takes, what was predicted of it and what was measured."""

    nbytes: int
    seconds: float
    predicted_loss: float
    types: Types = field(repr=False)
    measured: Mapping[str, float] | None = None

    @property
    def loss(self) -> float:
        return self.predicted_loss if self.measured is None else self.measured["loss"]

    def record(self) -> dict[str, Any]:
        """Without the types, in JSON's types."""
        found = {key: value for key, value in asdict(self).items() if key != "types"}
        return found | {"loss": self.loss, "counts": _counts(self.types)}


@dataclass(frozen=True)
class Allocation:
    """The point that was chosen, the front of predicted points around it, and every point that was measured."""

    chosen: Point
    front: list[Point]
    tried: list[Point]
    gap: float


@dataclass
class Problem:
    """What is known of a model: its tensors' options, their predicted losses and times, and what never changes."""

    options: Mapping[str, Sequence[Candidate]]
    sensitivity: Sensitivity
    fixed_bytes: int  # the header, and tensors that are never quantized
    seconds: Seconds
    fixed_seconds: float
    measure: Callable[[Types], Mapping[str, float]]  # with a ``loss``
    told: Callable[[float], str] = "a loss of {:.4g}".format

    def solve(self, goal: Goal) -> tuple[Point, float] | None:
        """The best point within a goal, and how far from the best it is at most; None where there is none.

        With a limit on the loss the smallest file, otherwise the least loss.
        """
        names, width = list(self.options), max(len(kinds) for kinds in self.options.values())
        nbytes, losses, seconds = (np.full((len(names), width), inf) for _ in range(3))
        for row, (name, kinds) in enumerate(self.options.items()):
            for column, kind in enumerate(kinds):
                nbytes[row, column] = kind.nbytes
                losses[row, column] = self.sensitivity.losses[name][kind.type_name]
                seconds[row, column] = self.seconds(name, kind.type_name)
        room = goal.seconds - self.fixed_seconds
        if goal.loss < inf:
            chosen = choose(Table(nbytes, losses, seconds), goal.loss, room)
        else:
            chosen = choose(Table(losses, nbytes, seconds), goal.nbytes - self.fixed_bytes, room)
        return None if chosen is None else (self._point(names, chosen), chosen.gap)

    def _point(self, names: Sequence[str], chosen: Chosen) -> Point:
        picked = {
            name: self.options[name][option] for name, option in zip(names, chosen.options, strict=True)
        }
        return self.point({name: kind.type_name for name, kind in picked.items()})

    def point(self, types: Types) -> Point:
        """Any choice of types, predicted."""
        sizes = {
            (name, kind.type_name): kind.nbytes for name, kinds in self.options.items() for kind in kinds
        }
        return Point(
            self.fixed_bytes + sum(sizes[item] for item in types.items()),
            self.fixed_seconds + sum(self.seconds(*item) for item in types.items()),
            self.sensitivity.of(types),
            types,
        )


def search(problem: Problem, goal: Goal) -> Allocation:
    """Meet a goal; raises GateError with the closest point where it is proven that nothing does."""
    tried: list[Point] = []
    if goal.loss < inf:
        chosen, gap = _to_quality(problem, goal, tried)
    else:
        found = problem.solve(goal)
        if found is None:
            raise _impossible(problem, goal)
        chosen, gap = _measured(problem, found[0], tried), found[1]
    return Allocation(chosen, _front(problem, goal), tried, gap)


def _to_quality(problem: Problem, goal: Goal, tried: list[Point]) -> tuple[Point, float]:
    """The smallest file whose measured loss keeps to the goal: what is predicted is corrected by what was measured."""
    correction, best, gap = 1.0, None, 0.0
    for _ in range(_ROUNDS):
        found = problem.solve(Goal(inf, goal.seconds, goal.loss * correction))
        if found is None or any(found[0].types == point.types for point in tried):
            break
        point = _measured(problem, found[0], tried)
        if (
            point.loss <= goal.loss
            and point.nbytes <= goal.nbytes
            and (best is None or point.nbytes < best.nbytes)
        ):
            best, gap = point, found[1]
        if point.loss <= goal.loss and point.loss >= _NEAR * goal.loss:
            break
        correction = point.predicted_loss / point.loss if point.loss > 0 else correction * 2
        if best is not None and best is not point:  # between what held and what did not
            correction = 0.5 * (correction + best.predicted_loss / goal.loss)
    if best is None:
        best = _largest(problem, goal, tried)
    return best, gap


def _largest(problem: Problem, goal: Goal, tried: list[Point]) -> Point:
    """The last try: the best quality that size and speed allow. Raises GateError where even that is not enough."""
    found = problem.solve(Goal(goal.nbytes, goal.seconds))
    if found is None:
        raise _impossible(problem, goal)
    point = _measured(problem, found[0], tried)
    if point.loss > goal.loss:
        raise GateError(
            f"no choice of these types has {problem.told(goal.loss)}: the best that fits has "
            f"{problem.told(point.loss)} in {point.nbytes:,} bytes; allow larger types, a larger file or less quality"
        )
    return point


def _impossible(problem: Problem, goal: Goal) -> GateError:
    smallest = problem.point({name: kinds[0].type_name for name, kinds in problem.options.items()})
    if smallest.nbytes > goal.nbytes:
        return GateError(
            f"no choice of these types has {goal.nbytes:,.0f} bytes: the smallest has {smallest.nbytes:,}; "
            "allow smaller types or a larger file"
        )
    fastest = problem.fixed_seconds + sum(
        min(problem.seconds(name, kind.type_name) for kind in kinds)
        for name, kinds in problem.options.items()
    )
    return GateError(
        f"no choice of these types generates {1 / goal.seconds:.1f} tokens/s: {1 / fastest:.1f} are predicted of the "
        "fastest; ask for fewer, or take a faster device or a smaller model"
    )


def _measured(problem: Problem, point: Point, tried: list[Point]) -> Point:
    known = next((one for one in tried if one.types == point.types), None)
    if known is not None:
        return known
    point = Point(
        point.nbytes, point.seconds, point.predicted_loss, point.types, dict(problem.measure(point.types))
    )
    tried.append(point)
    return point


def _front(problem: Problem, goal: Goal) -> list[Point]:
    """Predicted points from the smallest to the largest file, within the limit of time."""
    ends = [
        problem.point({name: kinds[end].type_name for name, kinds in problem.options.items()}).nbytes
        for end in (0, -1)
    ]
    found = [
        problem.solve(Goal(size, goal.seconds)) for size in np.geomspace(ends[0], ends[1], _FRONT).tolist()
    ]
    points = {point.nbytes: point for item in found if item is not None for point in (item[0],)}
    return [points[size] for size in sorted(points)]


def _counts(types: Types) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in types.values():
        found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))
