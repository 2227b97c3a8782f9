"""Which of several formats a device should get: the best of those fast enough, and why each other one is not it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SAME_SPEED = 0.95  # what is less than 5 % slower is as fast


@dataclass(frozen=True)
class Candidate:
    """A format of a model on a device: what it takes (bytes), gives (tokens/s) and costs (``loss``, None: unknown)."""

    name: str
    file_bytes: int
    memory_bytes: int
    speed: float
    loss: float | None
    problem: str = ""  # why it cannot be had there, whatever its figures


@dataclass(frozen=True)
class Ranked:
    """A candidate's place, from 1, and why; place None: rejected."""

    candidate: Candidate
    place: int | None
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What a choice must keep to: bytes of memory, the most loss, the least tokens/s.

    ``known_loss``: a format of which no loss is known does not keep to the limit; else it stands behind all others.
    """

    memory_bytes: float
    most_loss: float
    least_speed: float = 0.0
    known_loss: bool = False
    loss_name: str = field(default="KL")


def rank(candidates: Sequence[Candidate], wanted: Wanted) -> list[Ranked]:
    """The fitting ones, best first, then the rejected ones in their own order."""
    fitting, rejected = [], []
    for candidate in candidates:
        reason = _unfit(candidate, wanted)
        if reason:
            rejected.append(Ranked(candidate, None, reason))
        else:
            fitting.append(candidate)
    ranked: list[Ranked] = []
    waiting = list(fitting)
    while waiting:
        best = _best(waiting)
        waiting.remove(best)
        ranked.append(Ranked(best, len(ranked) + 1, _why(best, fitting, ranked, wanted)))
    return ranked + rejected


def _unfit(candidate: Candidate, wanted: Wanted) -> str:
    if candidate.problem:
        return candidate.problem
    if candidate.memory_bytes > wanted.memory_bytes:
        return (
            f"needs {candidate.memory_bytes / 1e9:.2f} GB of memory, "
            f"{wanted.memory_bytes / 1e9:.2f} GB may be used"
        )
    if candidate.loss is None and wanted.known_loss:
        return f"{wanted.loss_name} unknown, at most {wanted.most_loss:g} is wanted"
    if candidate.loss is not None and candidate.loss > wanted.most_loss:
        return f"{wanted.loss_name} {candidate.loss:.3g} is more than {wanted.most_loss:g}"
    if candidate.speed < wanted.least_speed:
        return f"{candidate.speed:.1f} tokens/s, {wanted.least_speed:g} are wanted"
    return ""


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """The least loss among those within 5 % of the fastest; nobody vouches for a loss that is unknown."""
    candidates = _vouched(candidates)
    fastest = max(candidate.speed for candidate in candidates)
    fast = [candidate for candidate in candidates if candidate.speed >= SAME_SPEED * fastest]
    return min(fast, key=lambda c: (_loss(c), c.memory_bytes, -c.speed))


def _vouched(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those with a known loss, all where there is none."""
    return [candidate for candidate in candidates if candidate.loss is not None] or candidates


def _loss(candidate: Candidate) -> float:
    return float("inf") if candidate.loss is None else candidate.loss


def _why(candidate: Candidate, fitting: Sequence[Candidate], before: Sequence[Ranked], wanted: Wanted) -> str:
    fastest = max(_vouched(fitting), key=lambda c: c.speed)
    if not before:
        if candidate is fastest:
            return f"the fastest that fits with {wanted.loss_name} up to {wanted.most_loss:g}"
        return (
            f"within 5 % of the fastest that fits ({fastest.name}), and {wanted.loss_name} "
            f"{_shown(candidate.loss)} against {_shown(fastest.loss)}"
        )
    first = before[0].candidate
    slower = 1 - candidate.speed / first.speed
    if _loss(candidate) < _loss(first):
        return (
            f"better ({wanted.loss_name} {_shown(candidate.loss)}) but {slower:.0%} slower than {first.name}"
        )
    if candidate.loss is None and first.loss is not None and slower:
        than = f"{-slower:.0%} faster" if slower < 0 else f"{slower:.0%} slower"
        return f"{than} than {first.name}, and {wanted.loss_name} unknown: measure it"
    if slower > 0:
        return f"no better than {first.name} and {slower:.0%} slower"
    return f"as fast as {first.name}, but {wanted.loss_name} {_shown(candidate.loss)}"


def _shown(loss: float | None) -> str:
    return "unknown" if loss is None else f"{loss:.3g}"
