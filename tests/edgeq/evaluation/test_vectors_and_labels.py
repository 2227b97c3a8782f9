"""Vectors of encoders and labels of classifiers against plain formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeq.errors import InputError
from edgeq.evaluation.classifiers import Example, accuracy, compare_classes, read_examples
from edgeq.evaluation.encoders import compare_vectors, mean_ranks

N, WIDTH = 30, 8


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    one = random.standard_normal((N, WIDTH)).astype(np.float32)
    other = one + 0.2 * random.standard_normal((N, WIDTH)).astype(np.float32)
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))


def _nearest(similarities: np.ndarray, i: int, k: int) -> set[int]:
    others = sorted((j for j in range(len(similarities)) if j != i), key=lambda j: -similarities[i, j])
    return set(others[:k])


def test_a_search_finds_the_same(vectors) -> None:
    a, b = vectors
    found = compare_vectors(a, b, [f"line {i}" for i in range(N)])
    sa, sb = a @ a.T, b @ b.T
    for k in (1, 5, 10):
        shares = [len(_nearest(sa, i, k) & _nearest(sb, i, k)) / k for i in range(N)]
        assert found[f"overlap_{k}"] == pytest.approx(np.mean(shares))
        assert found[f"overlap_{k}_standard_error"] == pytest.approx(np.std(shares) / np.sqrt(N - 1))
    pairs = np.triu_indices(N, 1)
    ranks = [np.argsort(np.argsort(s[pairs])) for s in (sa, sb)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0 < found["spearman_standard_error"] < 0.1
    assert found["cosine_mean"] == pytest.approx((a * b).sum(axis=1).mean())
    assert found["cosine_min"] == pytest.approx((a * b).sum(axis=1).min())


def test_equal_vectors_and_equal_lines(vectors) -> None:
    a, _ = vectors
    lines = ["same"] * 5 + [f"line {i}" for i in range(5, N)]
    found = compare_vectors(a, a, lines)
    assert (found["overlap_1"], found["spearman"], found["sentences"]) == (1, pytest.approx(1), N)
    with pytest.raises(InputError, match="2 different sentences"):
        compare_vectors(a, a, ["x", *["y"] * (N - 1)])


def test_equal_values_share_a_rank() -> None:
    assert mean_ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0, 1.5, 3]


def test_examples_of_a_classifier(tmp_path) -> None:
    lines = [
        json.dumps(one) for one in ({"text": "a", "label": "NEG"}, {"text": "b", "label": 1}, {"text": "c"})
    ]
    assert read_examples(tmp_path, lines, ["neg", "pos"]) == [
        Example("a", 0),
        Example("b", 1),
        Example("c", None),
    ]
    assert read_examples(tmp_path, ["plain text"], ["neg"]) == [Example("plain text", None)]
    for line, said in (
        ('{"text"', "line 1 is no JSON"),
        ('{"label": 1}', 'line 1 has no "text"'),
        ('{"text": "a", "label": "other"}', "the model's are neg, pos"),
        ('{"text": "a", "label": 2}', "has the label 2"),
        ('{"text": "a", "label": true}', "has the label True"),
    ):
        with pytest.raises(InputError, match=said):
            read_examples(tmp_path, [line], ["neg", "pos"])


def test_accuracy_and_agreement() -> None:
    own = [np.array([row], np.float32) for row in ([2, 1], [0, 1], [3, 0], [0, 1])]
    base = [np.array([row], np.float32) for row in ([2, 1], [1, 0], [3, 0], [0, 2])]
    examples = [Example("a", 0), Example("b", 0), Example("c", 0), Example("d", None)]
    found = compare_classes(base, own, examples)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_float"] == 1
    assert (found["same_label"], found["labelled"]) == (0.75, 3)
    assert found["accuracy_low"] < 2 / 3 < found["accuracy_high"]
    assert accuracy(own, [Example("a", None)] * 4) == {}
