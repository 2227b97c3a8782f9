"""The type mixes: against llama.cpp's golden records, and against llama.cpp itself."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.formats.gguf.mixes import Choice, ModelShape, choose_types, file_type, is_quantizable, stays_f32
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan

RECORDS = json.loads((Path(__file__).parent / "mix_records.json").read_text())["models"]
Tensors = list[tuple[str, tuple[int, ...]]]


def numbers(ranges: str) -> Iterator[int]:
    """'0-2,5' → 0, 1, 2, 5."""
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def record_tensors(record: dict[str, Any]) -> Tensors:
    tensors = [(name, tuple(shape)) for name, shape in record["tensors"]]
    for layers, group in record["layers"]:
        tensors += [(f"blk.{i}.{name}", tuple(s)) for i in numbers(layers) for name, s in group.items()]
    return tensors


def record_types(record: dict[str, Any], quant: str, tensors: Tensors) -> dict[str, str]:
    """The types that llama.cpp recorded for the tensors that it quantizes."""
    file = record["files"][quant]
    types = {name: file["default"] for name, shape in tensors if is_quantizable(name, shape)}
    for key, layers in file["exceptions"].items():
        name, type_name = key.split()
        for full in [f"blk.{i}.{name}" for i in numbers(layers)] or [name]:
            assert full in types
            types[full] = type_name
    return types


def model_shape(record: dict[str, Any]) -> ModelShape:
    fields = ("architecture", "n_layers", "n_heads", "n_kv_heads", "n_experts")
    return ModelShape(*(record[field] for field in fields))


@pytest.mark.parametrize("quant", FILE_TYPES)
@pytest.mark.parametrize("name", RECORDS)
def test_golden_records(name: str, quant: str) -> None:
    record = RECORDS[name]
    tensors = record_tensors(record)
    choices = choose_types(quant.lower(), model_shape(record), tensors[::-1])  # any order of the tensors
    assert [c.name for c in choices] == [n for n, _ in tensors[::-1]]
    types = record_types(record, quant, tensors)
    assert {c.name: c.type_name for c in choices if c.name in types} == types
    assert all(c.type_name == "F32" for c in choices if c.name not in types)


def llama_like(columns: int, layers: int, tied: bool, experts: int, extra: Tensors) -> Tensors:
    """The tensors of a llama with rows of ``columns`` values, in an order that is not llama.cpp's."""
    tensors: Tensors = [("output_norm.weight", (columns,))]
    for i in reversed(range(layers)):
        tensors += [(f"blk.{i}.attn_{part}.weight", (4, columns)) for part in ("v", "q", "k", "output")]
        tensors += [(f"blk.{i}.attn_norm.weight", (columns,)), (f"blk.{i}.attn_q.bias", (4,))]
        lead, suffix = ((experts,), "_exps") if experts else ((), "")
        tensors += [
            (f"blk.{i}.ffn_{part}{suffix}.weight", (*lead, 4, columns)) for part in ("down", "up", "gate")
        ]
        if experts:
            tensors.append((f"blk.{i}.ffn_gate_inp.weight", (experts, columns)))
    tensors += [("token_embd.weight", (48, columns)), *extra]
    return tensors if tied else [*tensors, ("output.weight", (48, columns))]


MODELS = {
    "dense": ("llama", 256, 9, False, 0, 4, 2),
    "tied": ("llama", 256, 3, True, 0, 4, 4),
    "rows of 32": ("llama", 288, 8, False, 0, 4, 4),
    "rows of 16": ("llama", 48, 2, True, 0, 4, 4),
    "8 experts": ("llama", 256, 8, False, 8, 4, 2),
    "4 experts": ("llama", 256, 8, False, 4, 4, 2),
    "65B": ("llama", 32, 80, False, 0, 8, 8),
    "70B": ("llama", 256, 80, False, 0, 8, 1),
    "qwen2 72B": ("qwen2", 256, 80, False, 0, 8, 1),
    "falcon": ("falcon", 256, 34, False, 0, 4, 1),
    "falcon, 8 experts": ("falcon", 256, 18, True, 8, 4, 4),
    "8 experts, tied": ("llama", 256, 18, True, 8, 8, 2),
}
EXTRA: Tensors = [("position_embd.weight", (8, 64)), ("blk.0.attn_rel_b.weight", (4, 8))]


def write_model(path: Path, name: str) -> tuple[ModelShape, Tensors]:
    """Write the model as convert_hf_to_gguf would write it in F16, with values that do not matter."""
    architecture, columns, layers, tied, experts, heads, kv_heads = MODELS[name]
    tensors = llama_like(columns, layers, tied, experts, EXTRA)
    model = ModelShape(architecture, layers, heads, kv_heads, experts)
    keys: dict[str, Any] = {
        "context_length": 64,
        "embedding_length": columns,
        "block_count": layers,
        "feed_forward_length": 32,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": 48,
    }
    if experts:
        keys |= {"expert_count": experts, "expert_used_count": 2}
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    metadata["general.file_type"] = file_type("F16").number
    # An empty vocabulary still has a list of tokens.
    metadata["tokenizer.ggml.tokens"] = Typed([f"t{i}" for i in range(48)], ValueType.STRING)
    rng = np.random.default_rng(0)
    dtypes = {"F32": np.float32, "F16": np.float16}
    choices = {c.name: c.type_name for c in choose_types("F16", model, tensors)}
    plans = [TensorPlan(n, choices[n], shape) for n, shape in tensors]
    with GGUFWriter(path, architecture, metadata, plans) as writer:
        for plan in plans:
            values = rng.standard_normal(plan.shape).astype(dtypes[plan.type_name])
            writer.write_rows(plan.name, values.view(np.uint8))
    return model, tensors


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(level: int, message: bytes, data: int) -> None:
    pass


def quantize(llama_cpp: Any, source: Path, target: Path, quant: str, weighted: Tensors | None = None) -> None:
    """By llama.cpp, with an importance matrix of ones for the tensors ``weighted``."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[quant].number
    parameters.nthread = 2
    if weighted is not None:
        sizes = {name: shape[-1] * math.prod(shape[:-2]) for name, shape in weighted}
        ones = (ctypes.c_float * max(sizes.values()))(*[1.0] * max(sizes.values()))
        entry = llama_cpp.llama_model_imatrix_data
        parameters.imatrix = (entry * (len(sizes) + 1))(
            *(entry(name.encode(), ones, size) for name, size in sizes.items()), entry(None, None, 0)
        )
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters) == 0


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_chooses_the_same(tmp_path: Path, name: str) -> None:
    """Each of our file types, quantized by llama.cpp from a file that our writer made."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(silent, None)
    model, tensors = write_model(tmp_path / "f16.gguf", name)
    matrices = [(n, shape) for n, shape in tensors if is_quantizable(n, shape)]
    for quant, kind in FILE_TYPES.items():
        target = tmp_path / f"{quant}.gguf"
        needs_imatrix = quant == "Q2_K_S"  # llama-quantize makes no such file without one
        quantize(llama_cpp, tmp_path / "f16.gguf", target, quant, matrices if needs_imatrix else None)
        # llama.cpp leaves what it does not quantize as it is in the F16 file; F32 and BF16 files from
        # convert_hf_to_gguf have those in their own type.
        with GGUFFile.open(target) as file:
            theirs = {t.name: t.type_name for t in file.tensors.values() if is_quantizable(t.name, t.shape)}
            kept = {t.name: t.type_name for t in file.tensors.values() if t.name not in theirs}
            assert file.metadata["general.file_type"] == kind.number
        chosen = choose_types(quant, model, tensors, has_imatrix=needs_imatrix)
        choices = {c.name: c.type_name for c in chosen}
        assert {n: t for n, t in choices.items() if n in theirs} == theirs, quant
        if quant not in ("F32", "BF16"):
            assert {n: t for n, t in choices.items() if n not in theirs} == kept, quant


@pytest.mark.parametrize("quant", ["Q4_0", "Q5_0", "Q4_K_M", "Q2_K", "Q2_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS"])
def test_importance_matrix(tmp_path: Path, quant: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(silent, None)
    model, tensors = write_model(tmp_path / "f16.gguf", "dense")
    quantizable = [(n, shape) for n, shape in tensors if is_quantizable(n, shape)]
    quantize(llama_cpp, tmp_path / "f16.gguf", tmp_path / "q.gguf", quant, quantizable)
    with GGUFFile.open(tmp_path / "q.gguf") as file:
        theirs = {t.name: t.type_name for t in file.tensors.values()}
    choices = choose_types(quant, model, tensors, has_imatrix=True)
    assert {c.name: c.type_name for c in choices} == theirs


def test_file_types() -> None:
    assert {kind.name: kind.number for kind in FILE_TYPES.values()} == {
        name: gguf.LlamaFileType["ALL_F32" if name == "F32" else f"MOSTLY_{name}"].value
        for name in FILE_TYPES
    }
    assert file_type(" q4_k_m ").number == 15
    assert file_type("q4_k").name == "Q4_K_M"
    with pytest.raises(EdgeqError, match=r"Q9: no such file type; there are F32, F16, BF16, Q8_0, .*Q6_K"):
        choose_types("Q9", ModelShape("llama", 1, 1, 1), [])


def test_reasons_and_fallbacks() -> None:
    model = ModelShape("llama", 8, 4, 4)
    shapes = {
        "blk.0.attn_v.weight": (64, 96),
        "blk.0.attn_q.weight": (64, 96),
        "blk.0.ffn_up.weight": (64, 40),
        "output.weight": (9, 512),
        "token_embd.weight": (9, 512),
        "blk.0.ffn_gate_inp.weight": (8, 512),
        "blk.0.attn_norm.weight": (512,),
    }
    by_name = {c.name: c for c in choose_types("Q4_K_M", model, list(shapes.items()))}
    assert [c.type_name for c in by_name.values()] == ["Q8_0", "Q5_0", "F16", "Q6_K", "Q4_K", "F32", "F32"]
    assert by_name["blk.0.ffn_up.weight"] == Choice(
        "blk.0.ffn_up.weight", "F16", "Q4_K", "base type; 40 columns do not divide by 256"
    )
    assert by_name["blk.0.ffn_up.weight"].is_fallback
    assert by_name["output.weight"].reason == "output"
    assert not by_name["output.weight"].is_fallback


def test_unquantized_files_keep_small_tensors_in_f32() -> None:
    shapes: Tensors = [
        ("token_embd.weight", (9, 8)),
        ("blk.0.attn_norm.weight", (8,)),
        ("blk.0.attn_q.bias", (8,)),
        ("position_embd.weight", (9, 8)),
        ("token_types.weight", (2, 8)),
        ("blk.0.ffn_gate_inp.weight", (4, 8)),
    ]
    for quant in ("F32", "F16", "BF16"):
        types = [c.type_name for c in choose_types(quant, ModelShape("bert", 1, 1, 1), shapes)]
        assert types == [quant] + ["F32"] * 5
    assert stays_f32("blk.3.ssm_conv1d.weight", (4, 8))


def test_layer_of_experts_must_be_known() -> None:
    model = ModelShape("llama", 2, 4, 4, n_experts=8)
    for name in ("ffn_down_exps.weight", "blk.2.ffn_down_exps.weight"):
        with pytest.raises(EdgeqError, match="does not say one of the model's 2 layers"):
            choose_types("Q4_K_M", model, [(name, (8, 32, 256))])
