"""Weights that others quantized: each layout's values, any rows of them, and what can be wrong with one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import packed_checkpoints as packed
import pytest
from safetensors.numpy import save_file

from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.checkpoint.weights import StoredWeights
from edgeq.formats.errors import EdgeqError, FormatError

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
GPTQ_V2 = GPTQ | {"checkpoint_format": "gptq_v2"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [16, 32]}
FBGEMM = {"quant_method": "fbgemm_fp8"}


def compressed(strategy: str, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True} | more
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


CASES: dict[str, tuple[dict[str, Any], Callable[[packed.Floats], packed.Packed]]] = {
    "gptq": (GPTQ, packed.gptq),
    "gptq-sym": (GPTQ | {"sym": True}, lambda w: packed.gptq(w, sym=True)),
    "gptq-v2": (GPTQ_V2, lambda w: packed.gptq(w, v2=True)),
    "gptq-8": (GPTQ | {"bits": 8}, lambda w: packed.gptq(w, 8)),
    "gptq-2": (GPTQ | {"bits": 2, "group_size": 16}, lambda w: packed.gptq(w, 2, 16)),
    "gptq-act-order": (GPTQ | {"desc_act": True}, lambda w: packed.gptq(w, act_order=True)),
    "gptq-one-group": (GPTQ | {"group_size": -1}, lambda w: packed.gptq(w, group_size=-1)),
    "gptq-short-group": (GPTQ | {"group_size": 40}, lambda w: packed.gptq(w, group_size=40)),
    "awq": (AWQ, packed.awq),
    "awq-16": (AWQ | {"group_size": 16, "version": "GEMM"}, lambda w: packed.awq(w, 16)),
    "nf4": (BNB, packed.nf4),
    "nf4-nested": (BNB, lambda w: packed.nf4(w, nested=True, nested_block=8)),
    "nf4-across-rows": (BNB, lambda w: packed.nf4(w[:, :95], 64, nested=True)),
    "int8": (BNB | {"load_in_4bit": False}, packed.int8),
    "fp8-tiles": (BLOCK_FP8, lambda w: packed.fp8(w, (16, 32))),
    "fp8-ragged-tiles": (
        BLOCK_FP8 | {"weight_block_size": [28, 36]},
        lambda w: packed.fp8(w, (28, 36)),
    ),
    "fp8-e8m0": (BLOCK_FP8, lambda w: packed.fp8(w, (16, 32), dtype=ml_dtypes.float8_e8m0fnu)),
    "fp8-one": ({"quant_method": "fp8"}, lambda w: packed.fp8(w, w.shape, "weight_scale")),
    "fbgemm": (FBGEMM, lambda w: packed.fp8(w, (1, 96), "weight_scale")),
    "compressed-channel": (
        compressed("channel"),
        lambda w: packed.fp8(w, (1, 96), "weight_scale", ml_dtypes.bfloat16),
    ),
    "compressed-block": (
        compressed("block", block_structure=[16, 32]),
        lambda w: packed.fp8(w, (16, 32), "weight_scale"),
    ),
}


def weight() -> packed.Floats:
    """``[48, 96]`` with a sign and a size of its own in each row."""
    random = np.random.default_rng(3)
    values = random.standard_normal((48, 96)) * np.exp(random.standard_normal((48, 1)))
    return (values + 0.3 * random.standard_normal((48, 1))).astype(np.float32)


def folder_of(folder: Path, settings: Any, tensors: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings}))
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def make(folder: Path, case: str) -> tuple[StoredWeights, packed.Floats]:
    """A checkpoint of one packed weight ``a.weight`` beside a plain one, and the packed weight's values."""
    settings, pack = CASES[case]
    parts, meant = pack(weight())
    tensors = {"a." + ending: part for ending, part in parts.items()} | {
        "norm.weight": np.ones(96, np.float16)
    }
    return StoredWeights(Checkpoint.open(folder_of(folder, settings, tensors))), meant


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_formula(tmp_path: Path, case: str) -> None:
    weights, meant = make(tmp_path, case)
    assert sorted(weights.names) == ["a.weight", "norm.weight"]
    assert weights.shape("a.weight") == meant.shape
    assert weights.dtype("a.weight") == np.float32
    assert weights.layout("a.weight")
    assert weights.layout("norm.weight") is None
    got = weights.array("a.weight")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), meant.view(np.uint32))
    # Coarse codes of smooth values stay near them: a wrong order of nibbles or groups would not.
    assert np.corrcoef(got.ravel(), weight()[:, : got.shape[1]].ravel())[0, 1] > (
        0.85 if case.endswith("-2") else 0.97
    )
    weights.release("a.weight")


@pytest.mark.parametrize("case", CASES)
def test_any_rows(tmp_path: Path, case: str) -> None:
    weights, meant = make(tmp_path, case)
    for start, stop in [(0, 1), (3, 3), (5, 14), (7, 8), (31, 48), (47, 48)]:
        np.testing.assert_array_equal(weights.rows("a.weight", start, stop), meant[start:stop])
    with pytest.raises(EdgeqError, match=r"has 48 rows; 40 to 49 are not in it"):
        weights.rows("a.weight", 40, 49)


@pytest.mark.parametrize("case", ["gptq", "gptq-act-order", "awq"])
def test_grid_is_what_the_values_come_from(tmp_path: Path, case: str) -> None:
    weights, meant = make(tmp_path, case)
    grid = weights.grid("a.weight", 5, 14)
    assert grid is not None
    assert grid.codes.min() >= 0
    assert grid.codes.max() <= 15
    np.testing.assert_array_equal(grid.values(), meant[5:14])
    assert weights.grid("norm.weight", 0, 1) is None


def test_stored_zero_wraps_around(tmp_path: Path) -> None:
    """The older format stores a zero of 0 as 15."""
    parts, meant = packed.gptq(np.abs(weight()))
    assert (parts["qzeros"] == -1).any()
    folder_of(tmp_path, GPTQ, {"a." + ending: part for ending, part in parts.items()})
    np.testing.assert_array_equal(StoredWeights(Checkpoint.open(tmp_path)).array("a.weight"), meant)


def test_gptq_without_g_idx(tmp_path: Path) -> None:
    parts, meant = packed.gptq(weight())
    del parts["g_idx"]
    tensors = {"a." + ending: part for ending, part in parts.items()}
    folder_of(tmp_path / "a", GPTQ, tensors)
    np.testing.assert_array_equal(StoredWeights(Checkpoint.open(tmp_path / "a")).array("a.weight"), meant)
    folder_of(tmp_path / "b", GPTQ | {"desc_act": True}, tensors)
    with pytest.raises(FormatError, match=r"tensor a.qweight has no a.g_idx, but desc_act is true"):
        StoredWeights(Checkpoint.open(tmp_path / "b"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (7, "quantization_config: must be an object, not 7"),
        ({}, "quantization_config.quant_method: None is not supported; there are "),
        ({"quant_method": "hqq"}, "quant_method: 'hqq' is not supported; there are awq, bitsandbytes, "),
        ({"quant_method": ["x"] * 99}, "quant_method: ['x', 'x', "),
        (GPTQ | {"bits": 3}, "quantization_config.bits: 3 is not supported; there are 2, 4, 8"),
        (GPTQ | {"bits": "4"}, "quantization_config.bits: must be a positive integer, not '4'"),
        (GPTQ | {"group_size": 0}, "quantization_config.group_size: must be a positive integer, not 0"),
        (
            GPTQ | {"group_size": 10**400},
            "quantization_config.group_size: must be a positive integer, not 1000",
        ),
        (GPTQ | {"group_size": 64}, "tensor a.scales has 3 groups; 96 columns by group_size 64 make 2"),
        (GPTQ | {"bits": 8}, "tensor a.qzeros has shape [3, 6], not [3, 12]"),
        (GPTQ | {"desc_act": 1}, "quantization_config.desc_act: must be true or false, not 1"),
        (GPTQ | {"checkpoint_format": "marlin"}, "checkpoint_format: 'marlin' is not supported"),
        (GPTQ | {"is_marlin_format": True}, "is_marlin_format: marlin's own order is not supported"),
        (AWQ, "tensor a.qzeros has shape [3, 6], not [3, 48]"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: Any, problem: str) -> None:
    parts, _ = packed.gptq(weight())
    if settings == AWQ:  # the same names, another layout
        parts["qweight"] = np.zeros((96, 48), np.int32)
        parts["scales"] = np.zeros((3, 48 * 8), np.float16)
    folder_of(tmp_path, settings, {"a." + ending: part for ending, part in parts.items()})
    assert_refused(tmp_path, problem)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (AWQ | {"bits": 8}, "quantization_config.bits: 8 is not supported; there is 4"),
        (AWQ | {"version": "gemv"}, "quantization_config.version: 'gemv' is not supported; there are gemm"),
        (
            BLOCK_FP8 | {"weight_block_size": [0, 1]},
            "weight_block_size: must be a list of two positive integers",
        ),
        (compressed("group"), "config_groups.group_0.weights.strategy: 'group' is not supported"),
        (compressed("tensor", type="int"), "config_groups.group_0.weights.type: 'int' is not supported"),
        (compressed("tensor", num_bits=4), "config_groups.group_0.weights.num_bits: only 8 is supported"),
        (compressed("tensor") | {"format": "pack-quantized"}, "format: 'pack-quantized' is not supported"),
        (compressed("tensor") | {"config_groups": []}, "config_groups: must be an object, not []"),
        (compressed("block"), "weights.block_structure: must be a list of two positive integers"),
    ],
)
def test_settings_of_the_others(tmp_path: Path, settings: Any, problem: str) -> None:
    folder_of(tmp_path, settings, {"norm.weight": np.ones(8, np.float32)})
    assert_refused(tmp_path, problem)


@pytest.mark.parametrize(
    ("file", "settings", "pack"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False, "sym": True}, packed.gptq),
        (
            "quant_config.json",
            {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"},
            packed.awq,
        ),
    ],
)
def test_settings_in_a_file_of_their_own(tmp_path: Path, file: str, settings: Any, pack: Any) -> None:
    """As early versions of AutoGPTQ and AutoAWQ left them."""
    parts, meant = pack(weight())
    folder_of(tmp_path, None, {"a." + ending: part for ending, part in parts.items()})
    assert_refused(tmp_path, "has no quantization_config, but there are quantized weights (.qweight)")
    (tmp_path / file).write_text("[]")
    assert_refused(tmp_path, f"{file}: is not a JSON object")
    (tmp_path / file).write_text(json.dumps(settings | {"w_bit": 3, "bits": 3}))
    assert_refused(tmp_path, f"{file}: settings.bits: 3 is not supported")
    (tmp_path / file).write_text(json.dumps(settings))
    np.testing.assert_array_equal(StoredWeights(Checkpoint.open(tmp_path)).array("a.weight"), meant)


def state(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        name = "a.weight.quant_state.bitsandbytes__nf4"
        fields = json.loads(tensors[name].tobytes()) | changes
        tensors[name] = np.frombuffer(json.dumps(fields).encode(), np.uint8)

    return change


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({name: value})


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("case", "change", "problem"),
    [
        ("gptq", drop("a.scales"), "tensor a.scales is missing; download the model again"),
        ("gptq", drop("a.qweight"), "tensor a.qweight is missing"),
        ("gptq", drop("a.qzeros"), "tensor a.qzeros is missing"),
        ("gptq", put("a.qweight", np.zeros((12, 48), np.int64)), "tensor a.qweight is int64, not int32"),
        ("gptq", put("a.qweight", np.zeros(12, np.int32)), "tensor a.qweight has shape [12], not [any, any]"),
        ("gptq", put("a.scales", np.zeros((3, 48), np.int8)), "tensor a.scales is int8, not float16 or "),
        ("gptq", put("a.scales", np.zeros((3, 47), np.float16)), "a.scales has shape [3, 47], not [any, 48]"),
        ("gptq", put("a.g_idx", np.zeros(95, np.int32)), "tensor a.g_idx has shape [95], not [96]"),
        ("gptq", put("a.g_idx", np.full(96, 3, np.int32)), "tensor a.g_idx holds 3, but there are 3 groups"),
        ("gptq", put("a.g_idx", np.full(96, -1, np.int32)), "tensor a.g_idx holds -1, but there are 3 groups"),
        ("gptq", put("a.weight", np.zeros(3, np.float32)), "tensor a.weight is there twice, plain and quantized"),
        ("awq", drop("a.scales"), "tensor a.scales is missing"),
        ("awq", put("a.qzeros", np.zeros((3, 5), np.int32)), "tensor a.qzeros has shape [3, 5], not [3, 6]"),
        ("nf4", drop("a.weight.quant_state.bitsandbytes__nf4"), "bitsandbytes__nf4 is missing"),
        ("nf4", drop("a.weight.absmax"), "tensor a.weight.absmax is missing"),
        ("nf4", put("a.weight", np.zeros((48, 96), np.float16)), "is float16; of bnb_4bit_quant_storage only"),
        ("nf4", put("a.weight", np.zeros((99, 1), np.uint8)), "has shape [99, 1]; its state says [48, 96]"),
        ("nf4", put("a.weight.quant_map", np.zeros(15, np.float32)), "quant_map has shape [15], not [16]"),
        ("nf4", state(blocksize=0), "bitsandbytes__nf4 has no positive integer blocksize"),
        ("nf4", state(blocksize=32), "tensor a.weight.absmax has shape [72], not [144]"),
        ("nf4", state(shape=[48, "96"]), "bitsandbytes__nf4 has no shape of two sizes"),
        ("nf4", state(shape=[1 << 30, 1 << 30]), "tensor a.weight has shape [2304, 1]; its state says"),
        ("nf4", put("a.weight.quant_state.bitsandbytes__nf4", np.zeros(9, np.uint8)), "is not JSON"),
        ("nf4", put("a.weight.quant_state.bitsandbytes__nf4", np.zeros(1 << 17, np.uint8)), "131072 bytes"),
        ("nf4-nested", drop("a.weight.nested_absmax"), "tensor a.weight.nested_absmax is missing"),
        ("nf4-nested", state(nested_offset=None), "has no finite nested_offset"),
        ("nf4-nested", state(nested_offset=float("nan")), "has no finite nested_offset"),
        ("nf4-nested", state(nested_blocksize=9), "nested_absmax has shape [9], not [8]"),
        ("int8", drop("a.SCB"), "tensor a.SCB is missing"),
        ("int8", put("a.SCB", np.zeros(47, np.float32)), "tensor a.SCB has shape [47], not [48]"),
        ("int8", put("a.weight_format", np.array(2, np.uint8)), "a.weight_format is not 0: only rows in their"),
        ("fp8-tiles", drop("a.weight_scale_inv"), "tensor a.weight has no a.weight_scale"),
        ("fp8-tiles", put("a.weight_scale", np.ones(1, np.float32)), "has both weight_scale_inv and weight_scale"),
        ("fp8-tiles", put("a.weight_scale_inv", np.ones((2, 3), np.float32)), "scale_inv has shape [2, 3], which fits"),
        ("fp8-tiles", put("a.weight_scale_inv", np.ones((3, 3), np.int8)), "a.weight_scale_inv is int8, not "),
        ("fp8-tiles", put("a.weight", np.ones((4, 4), ml_dtypes.float8_e5m2)), "is float8_e5m2, not float8_e4m3fn"),
        ("fp8-tiles", put("a.weight", np.ones((2, 4, 4), ml_dtypes.float8_e4m3fn)), "shape [2, 4, 4], not [any, any]"),
    ],
)  # fmt: skip
def test_tensors_that_contradict(tmp_path: Path, case: str, change: Callable[..., Any], problem: str) -> None:
    settings, pack = CASES[case]
    tensors: dict[str, Any] = {"a." + ending: part for ending, part in pack(weight())[0].items()}
    change(tensors)
    assert_refused(folder_of(tmp_path, settings, tensors), problem)


def assert_refused(folder: Path, problem: str) -> None:
    """One line that names the folder or a file in it, when the checkpoint is opened or its rows are read."""
    with pytest.raises(FormatError, match=re.escape(problem)) as caught:
        StoredWeights(Checkpoint.open(folder)).array("a.weight")
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert len(message) < 500


def test_only_the_rows_that_are_asked_for_are_in_memory(tmp_path: Path) -> None:
    """A row of a 64 MB GPTQ weight costs a row's memory, whatever its rows' layout."""
    import tracemalloc

    columns, out = 8192, 16384
    tensors = {
        "a.qweight": np.zeros((columns // 8, out), np.int32),
        "a.qzeros": np.zeros((columns // 32, out // 8), np.int32),
        "a.scales": np.ones((columns // 32, out), np.float16),
    }
    weights = StoredWeights(Checkpoint.open(folder_of(tmp_path, GPTQ, tensors)))
    tracemalloc.start()
    weights.rows("a.weight", 100, 108)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 8 * columns
