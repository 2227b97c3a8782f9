"""What others quantized, as blocked weights of ONNX: GPTQ and AWQ checkpoints, GGUF files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphs
import packed_checkpoints as packed
import pytest

from edgeq import export
from edgeq.errors import UsageError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.gguf_source import GGUFSource
from edgeq.source import SourceModel

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
Pack = Callable[[packed.Floats], packed.Packed]
MODELS: dict[str, tuple[dict[str, Any], Pack]] = {
    "gptq": (GPTQ, packed.gptq),
    "gptq-sym": (GPTQ, lambda w: packed.gptq(w, sym=True)),
    "gptq-8": (GPTQ | {"bits": 8}, lambda w: packed.gptq(w, 8)),
    "gptq-act-order": (GPTQ | {"desc_act": True}, lambda w: packed.gptq(w, act_order=True)),
    "gptq-narrow": (GPTQ | {"group_size": 16}, lambda w: packed.gptq(w, group_size=16)),
    "awq-wide": (AWQ | {"group_size": 64}, lambda w: packed.awq(w, 64)),
}
FUSED = ("attn_q", "attn_k", "attn_v")
SHARED = {"attn_k": "attn_q", "attn_v": "attn_q", "ffn_up": "ffn_gate"}
LOSSLESS = "repacked without loss"


def exported(model: Path, quant: str, out: Path, dialect: str, **more: Any) -> tuple[dict[str, Any], Path]:
    request = export.Request(model, "onnx", quant, out, dialect=dialect, proof=False, **more)
    result = export.run(request)
    return result.record, result.path


def stored_linears(path: Path, layers: int) -> dict[str, packed.Floats]:
    """The layers' matrices under their GGUF names, those of one product cut apart."""
    stored = onnx_graphs.stored_values(path)
    names = {name.rpartition("_int")[0] for name in stored if "_int" in name and name.startswith("blk.")}
    for name in names:  # who reads what another reads shares its order
        blk, role = name.removesuffix(".weight").rsplit(".", 1)
        first = f"{blk}.{SHARED.get(role, role)}.weight_order"
        if first in stored:
            stored[f"{name}_order"] = stored[first]
    found = {name: onnx_graphs.decoded(stored, name) for name in names}
    for i in range(layers):
        whole = found.pop(f"blk.{i}.attn_qkv.weight", None)
        if whole is not None:
            own = [len(found[f"blk.{i}.attn_output.weight"])]
            keys = (len(whole) - own[0]) // 2
            parts = np.split(whole, [own[0], own[0] + keys])
            found |= {f"blk.{i}.{role}.weight": part for role, part in zip(FUSED, parts, strict=True)}
    return found


@pytest.mark.parametrize("dialect", ["standard", "ort"])
@pytest.mark.parametrize("name", MODELS)
def test_grids_of_checkpoints_bit_for_bit(tmp_path: Path, name: str, dialect: str) -> None:
    meant = packed.write(tmp_path / "source", *MODELS[name])
    source = SourceModel.open(tmp_path / "source")
    quant = "int8-blocks" if name == "gptq-8" else "int4"
    record, path = exported(tmp_path / "source", quant, tmp_path / "out", dialect)
    origins = {(t["origin"], t["handling"], t["error"]) for t in record["tensors"] if t["origin"]}
    assert {(handling, error) for _, handling, error in origins} == {(LOSSLESS, 0)}
    assert any(LOSSLESS in note for note in record["notes"])
    got = stored_linears(path, source.hp.n_layers)
    names = {spec.name: "model." + spec.source for spec in source.specs.values()}
    assert {names[each] for each in got} == meant.keys()
    for each, values in got.items():
        np.testing.assert_array_equal(values.view(np.uint32), meant[names[each]].view(np.uint32), each)


@pytest.mark.parametrize(
    ("type_name", "quant", "dialect"),
    [
        ("Q4_0", "int4", "ort"),
        ("Q4_1", "int4", "standard"),
        ("Q8_0", "int8-blocks", "ort"),
        ("Q4_K_M", "int8-blocks", "ort"),
    ],
)
def test_blocks_of_gguf_bit_for_bit(
    tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path], type_name: str, quant: str, dialect: str
) -> None:
    path = make_gguf(tinylm, type_name)
    record, graph = exported(path, quant, tmp_path, dialect)
    assert {t["handling"] for t in record["tensors"] if t["origin"]} == {LOSSLESS}
    source = GGUFSource.open(path)
    got = stored_linears(graph, source.hp.n_layers)
    assert len(got) == 7 * source.hp.n_layers
    for name, values in got.items():
        np.testing.assert_array_equal(values.view(np.uint32), source.array(name).view(np.uint32), name)


def test_gguf_through_float_says_so(tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path]) -> None:
    record, _ = exported(make_gguf(tinylm, "Q8_0"), "int4", tmp_path, "ort")
    handled = {t["handling"] for t in record["tensors"] if t["origin"]}
    assert handled == {LOSSLESS, "re-rounded"}  # the table keeps its 8 bits
    assert "quantized before (GGUF, Q8_0): 30 tensors re-rounded" in record["notes"]


def test_gguf_rows_are_the_checkpoint_s(tinylm: Path, make_gguf: Callable[..., Path]) -> None:
    """In Hugging Face's order, whole and in pieces."""
    source, checkpoint = GGUFSource.open(make_gguf(tinylm, "F32")), SourceModel.open(tinylm)
    assert source.specs.keys() == checkpoint.specs.keys()
    assert (source.unused, source.parameters()) == ([], checkpoint.parameters())
    for name in source.specs:
        np.testing.assert_array_equal(source.array(name), checkpoint.array(name), name)
    np.testing.assert_array_equal(
        source.rows("blk.1.attn_q.weight", 3, 9), checkpoint.rows("blk.1.attn_q.weight", 3, 9)
    )


def test_gguf_brings_its_tokenizer(tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path]) -> None:
    from edgeq import tokenization

    record, _ = exported(make_gguf(tinylm, "Q8_0"), "int8-blocks", tmp_path, "ort")
    text = "def main(argv):\n    return 'naïve 日本'  # 12345"
    ours, theirs = (tokenization.from_directory(folder).encode(text).ids for folder in (tmp_path, tinylm))
    assert ours == theirs
    config = json.loads((tmp_path / "genai_config.json").read_text())
    assert config["model"]["decoder"]["filename"] == record["file"]
    assert config["model"]["eos_token_id"] == json.loads((tinylm / "config.json").read_text())["eos_token_id"]


def test_gguf_to_gguf_is_another_command(
    tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match=r"is GGUF already; edgeq quantize gives it other types"):
        export.run(export.Request(make_gguf(tinylm, "F32"), "gguf", "Q8_0", tmp_path))


def test_a_gguf_without_its_tensors(tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path]) -> None:
    import shutil

    from edgeq.errors import FormatError

    path = tmp_path / "broken.gguf"
    shutil.copyfile(make_gguf(tinylm, "F32"), path)
    content = path.read_bytes().replace(b"blk.0.ffn_down.weight", b"blk.0.ffn_dawn.weight")
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"broken\.gguf: tensor blk\.0\.ffn_down\.weight is missing"):
        GGUFSource.open(path)
    with GGUFFile.open(path) as file:
        assert "blk.0.ffn_dawn.weight" in file.tensors
