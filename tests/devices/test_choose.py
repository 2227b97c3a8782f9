"""Which format is chosen, and what the others are told."""

from __future__ import annotations

from edgeq.devices.choose import Candidate, Wanted, rank

WANTED = Wanted(memory_bytes=4e9, most_loss=0.05)


def candidate(
    name: str, speed: float, loss: float | None, memory: float = 1e9, problem: str = ""
) -> Candidate:
    return Candidate(name, int(memory), int(memory), speed, loss, problem)


def test_the_best_of_the_fast_ones_is_first():
    ranked = rank(
        [candidate("fast", 100, 0.04), candidate("better", 96, 0.01), candidate("slow", 50, 0.001)], WANTED
    )
    assert [row.candidate.name for row in ranked] == ["better", "fast", "slow"]
    assert "within 5 % of the fastest that fits (fast)" in ranked[0].reason
    assert ranked[2].reason == "better (KL 0.001) but 48% slower than better"


def test_every_rejection_has_its_reason():
    ranked = rank(
        [
            candidate("large", 100, 0.01, memory=5e9),
            candidate("bad", 100, 0.2),
            candidate("stuck", 100, 0.01, problem="cannot be loaded"),
            candidate("good", 80, 0.03),
            candidate("crawls", 1, 0.001),
        ],
        Wanted(4e9, 0.05, least_speed=5),
    )
    reasons = {row.candidate.name: row.reason for row in ranked}
    assert ranked[0].candidate.name == "good"
    assert ranked[0].reason == "the fastest that fits with KL up to 0.05"
    assert reasons["large"] == "needs 5.00 GB of memory, 4.00 GB may be used"
    assert reasons["bad"] == "KL 0.2 is more than 0.05"
    assert reasons["stuck"] == "cannot be loaded"
    assert reasons["crawls"] == "1.0 tokens/s, 5 are wanted"
    assert [row.place for row in ranked] == [1, None, None, None, None]


def test_an_unknown_loss_comes_after_known_ones_as_fast():
    ranked = rank([candidate("unknown", 100, None), candidate("known", 99, 0.04)], WANTED)
    assert [row.candidate.name for row in ranked] == ["known", "unknown"]
    assert "KL unknown" in ranked[1].reason


def test_an_unknown_loss_is_no_choice_where_others_are_known():
    formats = [candidate("unknown", 300, None), candidate("known", 99, 0.04)]
    ranked = rank(formats, WANTED)
    assert [row.candidate.name for row in ranked] == ["known", "unknown"]
    assert ranked[0].reason == "the fastest that fits with KL up to 0.05"
    assert ranked[1].reason == "203% faster than known, and KL unknown: measure it"
    strict = rank(formats, Wanted(4e9, 0.05, known_loss=True))
    assert strict[1].reason == "KL unknown, at most 0.05 is wanted"
    assert [row.candidate.name for row in rank(formats[:1], WANTED) if row.place] == ["unknown"]
