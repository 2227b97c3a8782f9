"""Checkpoints that others quantized, converted: grids copied where blocks hold them, and what the report says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import packed_checkpoints as packed
import pytest
from safetensors.numpy import load_file, save_file

from edgeq import export, quantize
from edgeq.convert import onnx_graph
from edgeq.convert.repack import can_repack, merge, repack
from edgeq.engine.model import from_source, open_model
from edgeq.families.rope import interleaved_order
from edgeq.formats import blocks
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.source import SourceModel

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
BNB = {"quant_method": "bitsandbytes"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
Pack = Callable[[packed.Floats], packed.Packed]
LINEARS = 6 * 7
TOKENS = list(range(100, 132))

MODELS: dict[str, tuple[dict[str, Any], Pack]] = {
    "gptq": (GPTQ, packed.gptq),
    "gptq-short": (GPTQ, lambda w: packed.gptq(w, short=True)),
    "gptq-short-wide": (GPTQ | {"group_size": 64}, lambda w: packed.gptq(w, group_size=64, short=True)),
    "gptq-sym": (GPTQ, lambda w: packed.gptq(w, sym=True)),
    "gptq-sym-v2": (GPTQ | {"checkpoint_format": "gptq_v2"}, lambda w: packed.gptq(w, sym=True, v2=True)),
    "gptq-8-sym": (GPTQ | {"bits": 8}, lambda w: packed.gptq(w, 8, sym=True)),
    "gptq-act-order": (GPTQ | {"desc_act": True}, lambda w: packed.gptq(w, sym=True, act_order=True)),
    "gptq-narrow": (GPTQ | {"group_size": 16}, lambda w: packed.gptq(w, group_size=16, sym=True)),
    "awq": (AWQ, packed.awq),
    "awq-short": (AWQ, lambda w: packed.awq(w, short=True)),
    "awq-wide": (AWQ | {"group_size": 64}, lambda w: packed.awq(w, 64)),
    "awq-sym": (AWQ, lambda w: packed.awq(w, sym=True)),
    "nf4": (BNB, lambda w: packed.nf4(w, nested=True)),
    "int8": (BNB, packed.int8),
    "fp8": (FP8, lambda w: packed.fp8(w, (128, 128))),
}


class Models:
    """TinyLM in each of the layouts, made when asked for: its folder, and what its packed weights stand for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, dict[str, packed.Floats]] = {}

    def __call__(self, name: str) -> tuple[Path, dict[str, packed.Floats]]:
        if name not in self.made:
            self.made[name] = packed.write(self.root / name, *MODELS[name])
        return self.root / name, self.made[name]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("packed"))


def exported(folder: Path, quant: str, out: Path) -> dict[str, Any]:
    return export.run(export.Request(folder, "gguf", quant, out, proof=False)).record


def decoded(path: Path, folder: Path) -> dict[str, packed.Floats]:
    """The linear weights of a GGUF file under the checkpoint's names and in its row order."""
    found = {}
    with GGUFFile.open(path) as file:
        for spec in SourceModel.open(folder).specs.values():
            if not spec.source.endswith("_proj.weight"):
                continue
            values = file.decode(spec.name)
            if spec.rope_heads:
                values = values[np.argsort(interleaved_order(len(values), spec.rope_heads))]
            found["model." + spec.source] = values
    return found


LOSSLESS = [
    ("gptq-short", "Q4_1"),
    ("gptq-short-wide", "Q4_1"),
    ("awq-short", "Q4_1"),
    ("gptq-sym", "Q4_1"),
    ("gptq-sym", "Q4_0"),
    ("gptq-sym-v2", "Q4_0"),
    ("awq-sym", "Q4_0"),
    ("gptq", "Q5_0"),
    ("awq", "Q5_0"),
    ("awq", "Q8_0"),
    ("gptq-8-sym", "Q8_0"),
]


@pytest.mark.parametrize(("model", "quant"), LOSSLESS)
def test_grid_is_copied_bit_for_bit(models: Models, tmp_path: Path, model: str, quant: str) -> None:
    folder, meant = models(model)
    record = exported(folder, quant, tmp_path)
    tensors = {tensor["name"]: tensor for tensor in record["tensors"]}
    linears = [tensor for tensor in tensors.values() if tensor["origin"]]
    assert len(linears) == len(meant) == LINEARS
    assert {(t["type_name"], t["handling"], t["error"]) for t in linears} == {
        (quant, "repacked without loss", 0)
    }
    assert tensors["token_embd.weight"]["handling"] == tensors["output_norm.weight"]["handling"] == ""
    origin = linears[0]["origin"]
    assert f"quantized before ({origin}): {LINEARS} tensors repacked without loss" in record["notes"]
    got = decoded(tmp_path / record["file"], folder)
    assert got.keys() == meant.keys()
    for name, values in meant.items():
        np.testing.assert_array_equal(got[name].view(np.uint32), values.view(np.uint32), err_msg=name)


@pytest.mark.parametrize(
    ("model", "quant", "handling"),
    [
        ("gptq", "Q4_1", "re-rounded, but "),
        ("gptq", "Q4_K_M", "re-rounded"),
        ("gptq", "F32", "decoded"),
        ("gptq-act-order", "Q4_0", "re-rounded"),
        ("gptq-narrow", "Q4_0", "re-rounded"),
        ("nf4", "Q8_0", "re-rounded"),
        ("int8", "Q8_0", "re-rounded"),
        ("fp8", "Q8_0", "re-rounded"),
    ],
)
def test_what_goes_through_float_says_so(
    models: Models, tmp_path: Path, model: str, quant: str, handling: str
) -> None:
    folder, meant = models(model)
    record = exported(folder, quant, tmp_path)
    handled = [tensor["handling"] for tensor in record["tensors"] if tensor["origin"]]
    assert len(handled) == LINEARS
    assert all(text.startswith(handling) for text in handled), handled
    short = handling.partition(",")[0]
    assert any(note.endswith(f"{LINEARS} tensors {short}") for note in record["notes"])
    limit = {"F32": 0, "Q8_0": 0.01}.get(quant, 0.15)
    for name, values in decoded(tmp_path / record["file"], folder).items():
        assert np.linalg.norm(values - meant[name]) <= limit * np.linalg.norm(meant[name]), name


def test_quantize_says_it_too(models: Models, tmp_path: Path) -> None:
    folder, _ = models("awq-sym")
    said: list[str] = []
    request = quantize.Request(folder, tmp_path / "m.gguf", "Q4_0", warn=said.append)
    record = quantize.run(request)
    assert f"quantized before (awq, 4 bits): {LINEARS} tensors repacked without loss" in said
    handled = [tensor["handling"] for tensor in record["tensors"] if tensor["origin"] == "awq, 4 bits"]
    assert handled == ["repacked without loss"] * LINEARS


@pytest.mark.parametrize("model", ["gptq-act-order", "awq", "nf4", "int8", "fp8"])
def test_engine_runs_the_checkpoint(models: Models, tmp_path: Path, model: str) -> None:
    """As it runs a plain one of the same values, kept in memory and streamed."""
    folder, meant = models(model)
    plain = {
        n: v.astype(np.float32) for n, v in load_file(packed.TINYLM / "model.safetensors").items()
    } | meant
    for file in packed.TINYLM.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(plain, tmp_path / "model.safetensors")
    expected = open_model(tmp_path).logits(TOKENS)
    np.testing.assert_array_equal(open_model(folder).logits(TOKENS), expected)
    np.testing.assert_allclose(
        from_source(SourceModel.open(folder), keep=False).logits(TOKENS), expected, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(("model", "quant"), [("gptq-short", "Q4_1"), ("gptq-8-sym", "Q8_0")])
def test_repacked_file_runs(models: Models, tmp_path: Path, model: str, quant: str) -> None:
    """In the engine and in llama.cpp: the embedding is rounded anew, activations are 8 bits; codes of −128 occur."""
    pytest.importorskip("llama_cpp")
    from edgeq.runtimes.llama_cpp import LlamaCpp

    folder, _ = models(model)
    path = tmp_path / exported(folder, quant, tmp_path)["file"]
    expected = open_model(folder).logits(TOKENS)
    limit = 0.06 * np.linalg.norm(expected)
    assert np.linalg.norm(open_model(path).logits(TOKENS) - expected) < limit
    with LlamaCpp(path, 64, 1) as runtime:
        assert np.linalg.norm(runtime.logits(TOKENS)[0] - expected) < limit


def test_onnx_graph_holds_the_decoded_weights(models: Models) -> None:
    folder, meant = models("awq")
    model = onnx_graph.build(SourceModel.open(folder))
    sizes = {tuple(sorted(v.shape)) for v in meant.values()}
    found = [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value is not None and tuple(sorted(value.const_value.shape.numpy())) in sizes
    ]
    sums = sorted(float(np.abs(array, dtype=np.float64).sum()) for array in found)
    assert sums == pytest.approx(sorted(float(np.abs(v, dtype=np.float64).sum()) for v in meant.values()))


def grid_of(scales: list[float], zeros: list[int], codes: np.ndarray, groups: np.ndarray) -> Grid:
    return Grid(
        codes.astype(np.int16)[None], np.array([scales], np.float32), np.array([zeros], np.int16), groups
    )


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_blocks_are_exact_one_by_one(type_name: str) -> None:
    """The first block can be held; a scale beyond float16, codes out of range and two groups in a block cannot."""
    kind = blocks.by_name(type_name)
    codes = np.resize(np.arange(3, 12), 128)  # not the whole range, so that rounding anew takes another scale
    codes[64] = 290  # beyond any of the types
    groups = np.array([0] * 32 + [1] * 32 + [2] * 32 + [0] * 31 + [3])
    grid = grid_of([0.5, 1 / 3, 0.25, 0.125], [8, 8, 8, 8], codes, groups)
    values = grid.values()
    repacked = repack(type_name, grid, values)
    assert repacked.exact.tolist() == [[True, False, False, False]]
    encoded = kind.encode(values)
    merged = kind.decode(merge(type_name, repacked, encoded, values), 128)
    np.testing.assert_array_equal(merged[:, :32], values[:, :32])
    one, other = kind.decode(repacked.coded, 128), kind.decode(encoded, 128)
    for block in np.split(np.arange(128), 4):
        errors = [float(np.square(x[:, block] - values[:, block]).sum()) for x in (merged, one, other)]
        assert errors[0] == min(errors)
    assert not np.array_equal(merged, other)


def test_grid_is_kept_where_only_the_minimum_is_rounded(models: Models, tmp_path: Path) -> None:
    """Groups of 64 columns in blocks of 32: from float, their codes would be rounded a second time."""
    folder, meant = models("awq-wide")
    record = exported(folder, "Q4_1", tmp_path)
    assert all(tensor["error"] < 1e-3 for tensor in record["tensors"] if tensor["origin"])
    exact = [np.array_equal(v, meant[name]) for name, v in decoded(tmp_path / record["file"], folder).items()]
    assert not any(exact)


@pytest.mark.parametrize("scale", [1e9, 1e-12, float(np.float32(np.float16(0.1)) * 1.0001)])
def test_scales_that_float16_does_not_hold(scale: float) -> None:
    grid = grid_of([scale], [8], np.arange(32) % 16, np.zeros(32, np.int64))
    for type_name in ("Q4_0", "Q4_1", "Q5_0", "Q8_0"):
        assert not repack(type_name, grid, grid.values()).exact.any(), type_name


def test_types_that_hold_no_grid() -> None:
    assert not any(can_repack(name) for name in ("F16", "Q4_K", "Q6_K", "IQ4_NL", "MXFP4"))
