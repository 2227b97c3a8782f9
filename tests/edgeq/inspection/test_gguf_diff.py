"""``--diff``: every kind of difference, and the errors against plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from edgeq.errors import EdgeqError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.inspection.gguf_diff import diff_gguf
from edgeq.inspection.stream import PIECE_VALUES

NAME = "blk.1.ffn_down.weight"


def _diff(a: Path, b: Path) -> dict:
    return diff_gguf(a, b, lambda stage, done, total: None)


@pytest.fixture
def one(tmp_path) -> Path:
    return tiny_gguf.write(tmp_path / "a.gguf")


@pytest.fixture
def other(tmp_path):
    """The tiny llama with changes (None takes away)."""

    def write(pairs=None, tensors=None, name="b.gguf"):
        changed = {k: v for k, v in (tiny_gguf.metadata() | (pairs or {})).items() if v is not None}
        made = {k: v for k, v in (tiny_gguf.tensors() | (tensors or {})).items() if v is not None}
        return tiny_gguf.write(tmp_path / name, changed, made)

    return write


def test_the_same(one, other):
    found = _diff(one, other())
    assert found["same_content"]
    assert not any(found["metadata"].values())
    assert all(t["identical"] and t["relative_rmse"] == 0 for t in found["tensors"]["common"])
    assert len(found["tensors"]["common"]) == len(tiny_gguf.tensors())


def test_metadata(one, other):
    tokens = tiny_gguf.metadata()["tokenizer.ggml.tokens"]
    changes = {
        "general.name": "n" * 500,
        "llama.vocab_size": None,
        "llama.context_length": 65,
        "general.file_type": Typed(7, ValueType.UINT64),
        "tokenizer.ggml.tokens": [*tokens[:10], "new", tokens[11], "more"],
    }
    found = _diff(one, other(changes))
    assert not found["same_content"]
    metadata = found["metadata"]
    assert list(metadata["added"]) == ["general.name"]
    assert "(500 characters)" in metadata["added"]["general.name"]
    assert metadata["removed"] == {"llama.vocab_size": 12}
    changed = {entry["key"]: entry for entry in metadata["changed"]}
    assert changed.keys() == {"llama.context_length", "general.file_type", "tokenizer.ggml.tokens"}
    assert (changed["llama.context_length"]["a"], changed["llama.context_length"]["b"]) == (64, 65)
    assert changed["general.file_type"]["detail"] == "UINT32 became UINT64"
    detail = changed["tokenizer.ggml.tokens"]["detail"]
    assert detail == "12 items became 13, 1 of the common 12 items differ, first at 10: 't6' became 'new'"
    assert len(changed["tokenizer.ggml.tokens"]["b"]) < 150


def test_nan_in_the_metadata_is_no_difference(other):
    pairs = {"llama.x": float("nan"), "llama.y": [1.0, float("nan")]}
    assert _diff(other(pairs, name="a2.gguf"), other(pairs))["same_content"]


def test_tensors_added_removed_reshaped(one, other):
    changes = {
        "new.weight": ("F16", np.ones((2, 3))),
        NAME: None,
        "output_norm.weight": ("F32", np.ones((1, 32))),
    }
    found = _diff(one, other(None, changes))["tensors"]
    assert [(t["name"], t["type_name"], t["shape"]) for t in found["added"]] == [
        ("new.weight", "F16", [2, 3])
    ]
    assert [t["name"] for t in found["removed"]] == [NAME]
    assert [(t["name"], t["a"]["shape"], t["b"]["shape"]) for t in found["reshaped"]] == [
        ("output_norm.weight", [32], [1, 32])
    ]


@pytest.mark.parametrize(
    "type_name", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
)
def test_error_of_a_type(tmp_path, type_name):
    """In several pieces, against the plain codec and float64 over the whole tensor."""
    shape = (PIECE_VALUES // 512 + 37, 768)
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    a = tiny_gguf.write(tmp_path / "a.gguf", made={"w": ("F32", values)})
    b = tiny_gguf.write(tmp_path / "b.gguf", made={"w": (type_name, values)})
    (found,) = _diff(a, b)["tensors"]["common"]
    with GGUFFile.open(b) as file:
        gap = file.decode("w").astype(np.float64) - values
    expected = np.sqrt((gap**2).sum() / (values.astype(np.float64) ** 2).sum())
    assert found["relative_rmse"] == pytest.approx(expected, rel=1e-12)
    assert found["max_abs"] == np.abs(gap).max()
    assert (found["a_type"], found["b_type"], found["identical"], found["not_finite"]) == (
        "F32",
        type_name,
        False,
        0,
    )


def test_worst_first(one, other):
    made = tiny_gguf.tensors()
    changes = {
        "blk.0.attn_q.weight": ("Q4_0", made["blk.0.attn_q.weight"][1]),
        "blk.1.attn_q.weight": ("Q8_0", -made["blk.1.attn_q.weight"][1]),
        "blk.0.ffn_norm.weight": ("F32", made["blk.0.ffn_norm.weight"][1] + 1e-3),
    }
    common = _diff(one, other(None, changes))["tensors"]["common"]
    assert [t["name"] for t in common[:3]] == [
        "blk.1.attn_q.weight",
        "blk.0.attn_q.weight",
        "blk.0.ffn_norm.weight",
    ]
    assert common[0]["relative_rmse"] == pytest.approx(2)
    assert all(t["identical"] for t in common[3:])


def test_other_bytes_of_the_same_values(one, other):
    values = np.ones((4, 32), np.float32)
    b = other(None, {"w": ("F32", values)})
    (found,) = [
        t
        for t in _diff(other(None, {"w": ("F16", values)}, "a2.gguf"), b)["tensors"]["common"]
        if t["name"] == "w"
    ]
    assert (found["identical"], found["relative_rmse"], found["max_abs"]) == (False, 0, 0)


def test_reference_of_zeros(other):
    a = other(None, {"w": ("F32", np.zeros((2, 2), np.float32))}, "a2.gguf")
    worst = _diff(a, other(None, {"w": ("F32", np.ones((2, 2), np.float32))}))["tensors"]["common"][0]
    assert (worst["name"], worst["relative_rmse"], worst["max_abs"]) == ("w", np.inf, 1)


def test_values_that_are_not_finite_are_left_out(other):
    left, right = np.full((2, 4), 2, np.float32), np.full((2, 4), 3, np.float32)
    left[0, :2], right[1, 3], right[0, 0] = (np.nan, np.inf), -np.inf, np.nan
    raw = [("F32", array.view(np.uint8)) for array in (left, right)]  # the encoder refuses NaN
    a = other(None, {"w": raw[0]}, "a2.gguf")
    worst = _diff(a, other(None, {"w": raw[1]}))["tensors"]["common"][0]
    assert (worst["name"], worst["relative_rmse"], worst["max_abs"], worst["not_finite"]) == ("w", 0.5, 1, 3)


def test_huge_values_do_not_overflow(other):
    a = other(None, {"w": ("F32", np.full((2, 4), 3e38, np.float32))}, "a2.gguf")
    worst = _diff(a, other(None, {"w": ("F32", np.full((2, 4), -3e38, np.float32))}))["tensors"]["common"][0]
    assert worst["relative_rmse"] == pytest.approx(2)
    assert worst["max_abs"] == pytest.approx(6e38)


@pytest.mark.parametrize("dtype", ["float64", "int8", "int32", "int64"])
def test_plain_numbers(other, dtype):
    type_name = {"float64": "F64"}.get(dtype, f"I{dtype[3:]}")
    raw = [np.array([[v] * 4], dtype).view(np.uint8) for v in (4, 5)]
    a = other(None, {"w": (type_name, raw[0])}, "a2.gguf")
    worst = _diff(a, other(None, {"w": (type_name, raw[1])}))["tensors"]["common"][0]
    assert (worst["relative_rmse"], worst["max_abs"]) == (0.25, 1)


def test_type_that_cannot_be_decoded(other):
    blocks = np.ones((1, 292), np.uint8)
    a = other(None, {"w": ("Q8_K", blocks)}, "a2.gguf")
    b = other(None, {"w": ("Q8_K", blocks + 1)})
    worst = _diff(a, b)["tensors"]["common"][0]
    assert (worst["name"], worst["comparable"], worst["relative_rmse"], worst["max_abs"]) == (
        "w",
        False,
        None,
        None,
    )
    assert _diff(a, a)["same_content"]


def test_broken_file(one, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(one.read_bytes()[:-300])
    with pytest.raises(EdgeqError, match=r"broken\.gguf: .*truncated"):
        _diff(one, broken)
