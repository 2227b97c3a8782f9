"""Buckets, and answers that may not be used."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.deploy.canary import Canary, bucket
from edgeq.deploy.checks import finite, repeats
from edgeq.deploy.shadow import divergence


@given(st.text(), st.text())
def test_a_bucket_is_a_number_of_the_key_alone(key: str, salt: str) -> None:
    assert 0 <= bucket(key, salt) < 1
    assert bucket(key, salt) == bucket(key, salt)


def test_buckets_are_written_down() -> None:
    """Other releases and other languages must send the same keys to the same model."""
    digest = hashlib.sha256(b"v2\0user-17").hexdigest()
    assert bucket("user-17", "v2") == (int(digest[:16], 16) >> 11) / 2**53


def test_shares_are_kept_and_grow(tmp_path) -> None:
    keys = [f"user-{i}" for i in range(4000)]
    few, more = ({key for key in keys if Canary(tmp_path, share, "s").takes(key)} for share in (0.05, 0.2))
    assert few < more
    assert abs(len(few) / len(keys) - 0.05) < 0.015
    assert abs(len(more) / len(keys) - 0.2) < 0.03
    other = {key for key in keys if Canary(tmp_path, 0.05, "t").takes(key)}
    assert len(few & other) < len(few) / 2
    assert not any(Canary(tmp_path, 0.0).takes(key) for key in keys)
    assert all(Canary(tmp_path, 1.0).takes(key) for key in keys)


@pytest.mark.parametrize(
    "text", ["na" * 60, "So. " + "I do not know. " * 9 + "I do", "x" * 80, "a b c " * 200]
)
def test_circles(text: str) -> None:
    assert repeats(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ha " * 20,
        "The quick brown fox jumps over the lazy dog. " * 3,
        "\n".join(f"{i} | {i * i} | {i**3}" for i in range(99)),
        "A table of what was measured, row by row, in seconds and in megabytes, with its heads:\n" + "-" * 80,
    ],
)
def test_no_circles(text: str) -> None:
    assert not repeats(text)


@given(st.text(min_size=1, max_size=20), st.integers(4, 9), st.integers(0, 19))
def test_whatever_goes_round_is_found(unit: str, rounds: int, more: int) -> None:
    text = unit * rounds + unit[: more % len(unit)]
    assert repeats(text) == (len(text) >= 80 or repeats(text))
    assert not repeats(text[:79])


def test_finite() -> None:
    assert finite({"a": [1.0, [2, "nan"]], "b": None})
    assert not finite([[0.0], [float("inf")]])
    assert not finite({"a": float("nan")})


def test_divergence() -> None:
    assert divergence("abcd", "abxd") == {"same": False, "agreement": 0.5, "lengths": [4, 4]}
    assert divergence("", "") == {"same": True, "agreement": 1.0, "lengths": [0, 0]}
    assert divergence([[1.0, 0.0]], [[0.0, 2.0]])["agreement"] == 0
    assert divergence([[1.0, 0.0]], [[3.0, 0.0]])["agreement"] == 1
