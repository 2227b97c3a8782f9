"""What ``--check`` calls an error, llama.cpp refuses; what it lets pass, llama.cpp loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.inspection.gguf_check import Severity, check_gguf

LOAD = """
import sys, llama_cpp
options = llama_cpp.llama_model_default_params()
options.check_tensors, options.n_gpu_layers = True, 0
for path in sys.argv[1:]:
    print("loads" if llama_cpp.llama_model_load_from_file(path.encode(), options) else "refused", flush=True)
"""
TOKENS = tiny_gguf.metadata()["tokenizer.ggml.tokens"]
ONES = np.ones((14, 32), np.float32)
NAN = np.full((1, 32), np.nan, np.float32).view(np.uint8)

# What is changed: metadata (None takes a key away), then tensors.
CASES: dict[str, tuple[dict, dict]] = {
    "nothing": ({}, {}),
    **{
        f"no {key}": ({key: None}, {})
        for key in tiny_gguf.metadata()
        if key.startswith(("llama.", "tokenizer."))
    },
    "context of 64 bits": ({"llama.context_length": Typed(64, ValueType.UINT64)}, {}),
    "signed width": ({"llama.embedding_length": Typed(32, ValueType.INT32)}, {}),
    "epsilon of 64 bits": ({"llama.attention.layer_norm_rms_epsilon": Typed(1e-5, ValueType.FLOAT64)}, {}),
    "heads as a list": ({"llama.attention.head_count": Typed([2, 2], ValueType.INT32)}, {}),
    "heads as a list of 64 bits": ({"llama.attention.head_count": Typed([2, 2], ValueType.UINT64)}, {}),
    "fewer blocks": ({"llama.block_count": 1}, {}),
    "more blocks": ({"llama.block_count": 3}, {}),
    "more rows than tokens": ({}, {"token_embd.weight": ("F32", ONES)}),
    "no embeddings": ({}, {"token_embd.weight": None}),
    "another vocab_size": ({"llama.vocab_size": 13}, {}),
    "few scores": ({"tokenizer.ggml.scores": [0.5] * 11}, {}),
    "many scores": ({"tokenizer.ggml.scores": [0.5] * 13}, {}),
    "few token types": ({"tokenizer.ggml.token_type": Typed([1] * 11, ValueType.INT32)}, {}),
    "empty tokens": ({"tokenizer.ggml.tokens": [*TOKENS[:-2], "", ""]}, {}),
    "no merges": ({"tokenizer.ggml.model": "gpt2"}, {}),
    "no vocabulary": ({"tokenizer.ggml.model": "none"}, {}),
    "NaN": ({}, {"output_norm.weight": ("F32", NAN)}),
}
ABORTS: dict[str, dict] = {
    "a token twice": {"tokenizer.ggml.tokens": [*TOKENS[:-1], "t0"]},
    "alignment of 1": {"general.alignment": 1, "general.name": "one"},
}


def _write(path: Path, pairs: dict, tensors: dict) -> Path:
    changed = {k: v for k, v in (tiny_gguf.metadata() | pairs).items() if v is not None}
    made = {k: v for k, v in (tiny_gguf.tensors() | tensors).items() if v is not None}
    return tiny_gguf.write(path, changed, made)


def _is_error(path: Path) -> bool:
    return any(finding.severity == Severity.error for finding in check_gguf(path, lambda *_: None))


def _load(*paths: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("llama_cpp")
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, "-c", LOAD, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_errors_are_what_it_refuses(tmp_path):
    paths = [_write(tmp_path / f"{i}.gguf", *case) for i, case in enumerate(CASES.values())]
    done = _load(*paths)
    assert done.returncode == 0, done.stderr[-500:]
    ours = {name: "refused" if _is_error(path) else "loads" for name, path in zip(CASES, paths, strict=True)}
    assert dict(zip(CASES, done.stdout.split(), strict=True)) == ours


@pytest.mark.parametrize("case", ABORTS)
def test_errors_are_where_it_aborts(tmp_path, case):
    path = _write(tmp_path / "model.gguf", ABORTS[case], {})
    assert _is_error(path)
    assert _load(path).returncode != 0
