"""The embedded engine against llama.cpp on types that edgeq writes, and on types that it only reads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.engine.model import open_model
from edgeq.formats.gguf.mixes import is_quantizable
from edgeq.formats.gguf.overrides import parse_override
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.runtimes.llama_cpp import LlamaCpp
from edgeq.source import SourceModel

llama_cpp: Any = pytest.importorskip("llama_cpp")
TINYLM = Path(__file__).parents[2] / "assets" / "tinylm"
CAP = 0.08  # Q4_K_M, whose codecs are exact, reaches 0.06
TOKENS = list(range(100, 116))
READ_ONLY = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_M", "IQ3_XXS", "IQ3_S"]  # llama.cpp's file types


def difference(path: Path) -> float:
    """Of the engine's logits from llama.cpp's, relative; llama.cpp rounds activations to 8 bits."""
    with LlamaCpp(path, 64, 1) as reference:
        theirs, _ = reference.logits(TOKENS)
    ours = open_model(path).logits(TOKENS)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def source() -> CheckpointRows:
    return CheckpointRows(SourceModel.open(TINYLM))


def write(source: CheckpointRows, quant: str, path: Path, overrides: Sequence[str] = ()) -> None:
    planned = gguf_file.plan(source, quant, [parse_override(text) for text in overrides])
    gguf_file.write(source, planned, path, gguf_file.WriteOptions())


@pytest.mark.parametrize("quant", ["Q2_K", "Q3_K_M", "Q4_K_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"])
def test_files_of_our_types(source: CheckpointRows, tmp_path: Path, quant: str):
    write(source, quant, tmp_path / "m.gguf")
    assert difference(tmp_path / "m.gguf") < CAP


def test_tensors_with_types_of_their_own(source: CheckpointRows, tmp_path: Path):
    overrides = ("ffn_(up|gate)=MXFP4", "ffn_down=Q5_1", "attn_v=IQ4_XS")
    write(source, "Q8_0", tmp_path / "m.gguf", overrides)
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert {t.type_name for t in file.tensors.values()} == {"F32", "Q8_0", "MXFP4", "Q5_1", "IQ4_XS"}
    assert difference(tmp_path / "m.gguf") < CAP


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(level: int, message: bytes, data: int) -> None:
    pass


@pytest.mark.parametrize("quant", READ_ONLY)
def test_files_of_types_that_are_only_read(source: CheckpointRows, tmp_path: Path, quant: str):
    """llama.cpp makes the file, with an importance matrix of ones."""
    llama_cpp.llama_log_set(silent, None)
    write(source, "F16", tmp_path / "f16.gguf")
    with GGUFFile.open(tmp_path / "f16.gguf") as file:
        sizes = {t.name: t.columns for t in file.tensors.values() if is_quantizable(t.name, t.shape)}
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = gguf.LlamaFileType[f"MOSTLY_{quant}"].value
    parameters.nthread = 2
    ones = (ctypes.c_float * 1024)(*[1.0] * 1024)
    entry = llama_cpp.llama_model_imatrix_data
    entries = [entry(name.encode(), ones, size) for name, size in sizes.items()]
    parameters.imatrix = (entry * (len(entries) + 1))(*entries, entry(None, None, 0))
    paths = [str(tmp_path / name).encode() for name in ("f16.gguf", "m.gguf")]
    assert llama_cpp.llama_model_quantize(*paths, parameters) == 0
    assert difference(tmp_path / "m.gguf") < CAP
