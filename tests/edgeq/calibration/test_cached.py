"""What calibration saw, kept for the next run on the same model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_graphs import saved, small_cnn
from onnx_graphs import normal

from edgeq import user_cache
from edgeq.calibration.cached import data_hash
from edgeq.onnx import Request, quantize

DATA = [{"x": normal(i, 2, 3, 12, 12)} for i in range(8)]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    return saved(small_cnn(), tmp_path / "cnn.onnx")


def go(source: Path, **options: Any) -> tuple[bool, bytes]:
    """(whether the passes came from the cache, the file)."""
    chosen: dict[str, Any] = {"calibration": DATA, "proof": False, "force": True} | options
    record = quantize(Request(source, source.with_name("out"), "int8", **chosen))
    (kept,) = {one["cached"] for one in record["calibration"]["passes"]}
    return kept, Path(record["files"][0]).read_bytes()


def test_another_method_and_scheme_need_no_run(source: Path) -> None:
    fresh, first = go(source)
    assert not fresh
    assert go(source) == (True, first)
    for options in ({"method": "percentile:99"}, {"scheme": "s8s8"}, {"isa": "avx512-vnni"}):
        kept, made = go(source, **options)
        assert kept
        assert made != first
        assert go(source, **options, cache=False) == (False, made)


def test_other_data_or_another_model_are_run(source: Path) -> None:
    go(source)
    assert not go(source, calibration=DATA[:-1])[0]
    assert not go(source, calibration=[{"x": one["x"] + np.float32(1)} for one in DATA])[0]
    assert not go(saved(small_cnn(18), source.with_name("other.onnx")))[0]
    assert go(source)[0]


def test_without_the_cache_nothing_is_kept(source: Path) -> None:
    go(source, cache=False)
    assert not user_cache.folder().exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4 nothing", None])
def test_a_broken_cache_is_made_anew(source: Path, content: bytes | None) -> None:
    _, first = go(source)
    for path in user_cache.folder().glob("*.calibration.npz"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert go(source) == (False, first)
    assert go(source) == (True, first)


def test_a_cache_that_cannot_be_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = source.with_name("file")
    blocked.write_bytes(b"")
    monkeypatch.setenv("EDGEQ_CACHE", str(blocked / "cache"))
    assert not go(source)[0]


def test_the_hash_of_data() -> None:
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)
    hashes = [
        data_hash(samples)
        for samples in (
            [],
            [{"x": a}],
            [{"y": a}],
            [{"x": b}],
            [{"x": a.view(np.int32)}],
            [{"x": a[:1]}, {"x": a[1:]}],
            [{"x": a + np.float32(1)}],
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert data_hash([{"x": a, "y": b}]) == data_hash([{"y": b, "x": np.asfortranarray(a)}])
