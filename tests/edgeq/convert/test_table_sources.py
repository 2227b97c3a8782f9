"""bitsandbytes' NF4 and FP4 checkpoints as MatMulBnb4: the very codes and scales, double quantization undone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import packed_checkpoints as packed
import pytest
from safetensors.numpy import load_file, save_file

from edgeq import export
from edgeq.engine.model import from_source
from edgeq.errors import FormatError
from edgeq.evaluation.metrics import cosines
from edgeq.formats.onnx.read import read_model
from edgeq.formats.table_codes import TableCodes
from edgeq.runtimes.onnxruntime import OnnxSession, decoder_feeds
from edgeq.source import SourceModel

BNB = {"quant_method": "bitsandbytes"}
LOSSLESS = "repacked without loss"
TABLES = {0: np.array(packed.FP4, np.float32), 1: np.array(packed.NF4, np.float32)}
MODELS: dict[str, Callable[[packed.Floats], packed.Packed]] = {
    "nf4": packed.nf4,
    "nf4-nested": partial(packed.nf4, nested=True),
    "fp4-nested": partial(packed.fp4, block=128, nested=True),
}


def exported(folder: Path, out: Path, quant: str = "nf4", **more: Any) -> tuple[dict[str, Any], Path]:
    result = export.run(export.Request(folder, "onnx", quant, out, proof=False, **more))
    return result.record, result.path


@pytest.mark.parametrize(
    ("name", "dialect"), [("nf4", "standard"), ("nf4-nested", "ort"), ("fp4-nested", "standard")]
)
def test_codes_bit_for_bit(tmp_path: Path, name: str, dialect: str) -> None:
    meant = packed.write(tmp_path / "source", BNB, MODELS[name])
    record, path = exported(tmp_path / "source", tmp_path / "out", dialect=dialect)
    assert path.name == "model_bnb4.onnx"
    origins = [(t["origin"], t["handling"], t["error"]) for t in record["tensors"] if t["origin"]]
    assert set(origins) == {(f"bitsandbytes, {name[:3]}", LOSSLESS, 0)}
    assert (
        f"quantized before (bitsandbytes, {name[:3]}): {len(origins)} tensors {LOSSLESS}" in record["notes"]
    )
    model = read_model(path)
    stored = load_file(tmp_path / "source/model.safetensors")
    source = SourceModel.open(tmp_path / "source")
    found = 0
    for node in (node for node in model.graph if node.op_type == "MatMulBnb4"):
        stem = str(node.inputs[1].name).rpartition(".weight_")[0]
        if "token_embd" in stem:  # the tied head, which nobody quantized before
            continue
        roles = ["attn_q", "attn_k", "attn_v"] if "attn_qkv" in stem else [stem.rpartition(".")[2]]
        names = [source.specs[f"{stem.rpartition('.')[0]}.{role}.weight"].source for role in roles]
        codes, scales = (node.inputs[i].const_value.numpy() for i in (1, 2))
        given = [stored["model." + each].reshape(-1) for each in names]
        np.testing.assert_array_equal(codes, np.concatenate(given))
        attributes = {key: value.value for key, value in node.attributes.items()}
        pairs = np.stack([codes >> 4, codes & 15], axis=-1).reshape(-1)
        values = TABLES[attributes["quant_type"]][pairs] * np.repeat(scales, attributes["block_size"])
        expected = np.concatenate([meant["model." + each].reshape(-1) for each in names])
        np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))
        found += len(names)
    assert found == len(meant)


def test_it_answers_as_the_checkpoint(tmp_path: Path, code_tokens: list[int]) -> None:
    packed.write(tmp_path / "source", BNB, MODELS["nf4-nested"])
    with_head = exported(tmp_path / "source", tmp_path / "out")[1]
    session, tokens = OnnxSession(with_head, threads=1), code_tokens[:24]
    logits = session.run(decoder_feeds(tokens, session.empty_past()), ["logits"])[0][0]
    expected = from_source(SourceModel.open(tmp_path / "source")).logits(tokens)
    assert cosines(expected, logits).min() > 0.98  # the head and the table are rounded


def test_what_the_operator_has_not(tmp_path: Path) -> None:
    """Blocks of 512, and another table: rounded again, and said so."""
    for name, pack in (("wide", partial(packed.nf4, block=512)), ("bent", _bent)):
        packed.write(tmp_path / name, BNB, pack)
        record, _ = exported(tmp_path / name, tmp_path / f"{name}-out", block_size=64)
        assert {t["handling"] for t in record["tensors"] if t["origin"]} == {"re-rounded"}


def _bent(weight: packed.Floats) -> packed.Packed:
    tensors, values = packed.nf4(weight)
    tensors["weight.quant_map"] = tensors["weight.quant_map"] * np.float32(0.9)
    return tensors, values * np.float32(0.9)


def test_stacks() -> None:
    """Weights of whole blocks become one; others do not."""
    table = TABLES[1]

    def part(count: int, size: int = 16, table: packed.Floats = table) -> TableCodes:
        codes, scales = np.arange(count // 2, dtype=np.uint8), np.full(-(-count // size), count, np.float32)
        return TableCodes(table, size, count, lambda: (codes, scales))

    both = TableCodes.stacked([part(32), part(64)])
    assert both is not None
    assert both.count == 96
    assert both.read()[1].tolist() == [32.0] * 2 + [64.0] * 4
    assert [len(each) for each in both.read()] == [48, 6]
    for other in (None, part(64, 32), part(64, table=TABLES[0])):
        assert TableCodes.stacked([part(32), other]) is None
    assert TableCodes.stacked([part(24), part(32)]) is None


@pytest.mark.parametrize(
    ("ending", "change", "said"),
    [
        ("nested_absmax", lambda x: x[:-1], r"nested_absmax has shape \[\d+\], not \[\d+\]"),
        ("nested_quant_map", lambda x: x[:255], r"nested_quant_map has shape \[255\], not \[256\]"),
        ("nested_absmax", lambda x: x * np.float32(np.nan), "absmax holds NaN or infinity"),
        ("absmax", lambda x: x[:-1], r"weight.absmax has shape"),
    ],
)
def test_damaged_scales(tmp_path: Path, ending: str, change: Any, said: str) -> None:
    packed.write(tmp_path / "source", BNB, MODELS["nf4-nested"])
    file = tmp_path / "source/model.safetensors"
    tensors = load_file(file)
    name = next(each for each in tensors if each.endswith(f".down_proj.weight.{ending}"))
    save_file(tensors | {name: np.ascontiguousarray(change(tensors[name]))}, file)
    with pytest.raises(FormatError, match=f"model.safetensors: tensor .*{said}"):
        exported(tmp_path / "source", tmp_path / "out")
