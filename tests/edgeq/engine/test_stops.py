"""Stop strings, however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.engine.stops import until


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["ab", "cd"], [], "abcd"),
        (["ab", "cd"], ["bc"], "a"),
        (["ab", "cd"], ["x"], "abcd"),
        (["a\n", "\nb"], ["\n\n"], "a"),
        (["aab"], ["ab", "a"], ""),
        (["bca"], ["c", "bca"], "b"),  # complete first
        (["xa", "a", "b"], ["aab"], "x"),
        (["xa", "a", "c"], ["aab"], "xaac"),
    ],
)
def test_the_text_ends_before_the_first_stop(pieces: list[str], stops: list[str], expected: str) -> None:
    assert "".join(until(iter(pieces), stops)) == expected


@given(st.lists(st.text("abc", max_size=4)), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    found = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    _, end = min(found, default=(0, len(whole)))
    assert "".join(until(iter(pieces), stops)) == whole[:end]


def test_only_what_may_become_a_stop_is_held_back() -> None:
    assert list(until(iter(["ab", "cd", "e"]), ["ce"])) == ["ab", "cd", "e"]
    assert list(until(iter(["ab", "c", "d"]), ["ce"])) == ["ab", "cd"]


def test_nothing_more_is_asked_for_after_a_stop() -> None:
    pieces = iter(["a.", "b", "c"])
    assert list(until(pieces, ["."])) == ["a"]
    assert next(pieces) == "b"
