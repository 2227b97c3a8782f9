"""A trained classifier keeps its accuracy in int8, whatever the scheme and the way ranges are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq.onnx
from edgeq.onnx import Request, quantize

pytest.importorskip("sklearn")
from digits import Digits, digits, digits_model, train
from foreign_graphs import saved
from threadpoolctl import threadpool_limits

POINTS = 0.003  # of top-1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digits]:
    """The float model, and what it was not trained on; calibration data lies beside it."""
    folder = tmp_path_factory.mktemp("digits")
    training, test = digits()
    np.save(folder / "calibration.npy", training.images[:128])
    with threadpool_limits(1):  # the matrices are small: threads would wait for each other
        weights = train(training)
    return saved(digits_model(weights), folder / "digits.onnx"), test


def accuracy(path: Path, test: Digits) -> float:
    (logits,) = edgeq.onnx.session(path).run(None, {"image": test.images})
    return float((logits.argmax(axis=1) == test.labels).mean())


def test_the_float_model_is_worth_it(trained: tuple[Path, Digits]) -> None:
    assert accuracy(*trained) >= 0.97


@pytest.mark.parametrize(
    ("quant", "scheme", "method"),
    [
        ("int8", "u8s8", "minmax"),
        ("int8", "s8s8", "percentile:99.99"),
        ("int8", "u8u8", "mse"),
        ("int8", "u8s8", "entropy"),
        ("int8", "u8s8", "moving-average"),
        ("int8", "u8s8", "mean-std:8"),
        ("int8-dynamic", "u8s8", "minmax"),
    ],
)
def test_top_1(trained: tuple[Path, Digits], quant: str, scheme: str, method: str, tmp_path: Path) -> None:
    source, test = trained
    data = source.with_name("calibration.npy")
    request = Request(source, tmp_path / "q.onnx", quant, data, method, scheme=scheme, allow_slower=True)
    record = quantize(request)
    assert record["gates"] == []
    assert record["exempted"] == {}
    allowed = POINTS
    assert accuracy(tmp_path / "q.onnx", test) >= accuracy(*trained) - allowed
