"""Calibrated encoding of families of every build: stacked experts, encoders, fused and rotated projections."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeq.calibration.samples import Calibration
from edgeq.cli import app
from edgeq.convert import gguf_file
from edgeq.convert.calibrated import encoded_tensors
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.folded_source import awq_source
from edgeq.engine import model as engine
from edgeq.formats.blocks import by_name
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.methods import BlockGrid
from edgeq.source import SourceModel


class RandomTokens(Calibration):
    """Two sequences of any tokens."""

    def samples(self, model, tokenizer) -> list[list[int]]:
        return np.random.default_rng(0).integers(1, model.hp.vocab, (2, 48)).tolist()


OracleFolder = Callable[[str], Path]


def encoded(model: Path, folder: Path) -> dict[str, float]:
    """Relative errors of what was encoded; NaN for what only got weights."""
    source = CheckpointRows(SourceModel.open(model))
    planned = gguf_file.plan(source, "Q4_0")
    found: dict[str, float] = {}
    with encoded_tensors(source, planned, RandomTokens(Path("text")), folder) as result:
        for tensor in planned.tensors:
            if tensor.name in result:
                whole = (0, int(np.prod(tensor.shape[:-1])))
                values = by_name(tensor.type_name).decode(result.rows(tensor.name, whole), tensor.shape[-1])
                weights = np.concatenate(
                    [source.rows(tensor.name, rows) for rows in source.pieces(tensor.name)]
                )
                found[tensor.name] = float(np.linalg.norm(values - weights) / np.linalg.norm(weights))
        for name, weights in result.importance.items():
            assert np.isfinite(weights).all()
            found[name] = np.nan
        assert "tensors chosen on 96 tokens of text" in result.note()
    return found


def roles(found: dict[str, float]) -> set[str]:
    return {name.removesuffix(".weight").split(".", 2)[-1] for name in found if name.startswith("blk.1.")}


def test_rotated_rows_stay_in_the_files_order(oracle_folder: OracleFolder, tmp_path: Path):
    found = encoded(oracle_folder("llama"), tmp_path)
    attention = {"attn_q", "attn_k", "attn_v", "attn_output"}
    assert roles(found) == attention | {"ffn_gate", "ffn_up", "ffn_down"}
    assert max(found.values()) < 0.25, found


def test_experts_get_weights(oracle_folder: OracleFolder, tmp_path: Path):
    found = encoded(oracle_folder("mixtral"), tmp_path)
    stacks = {name for name in found if "_exps" in name}
    assert len(stacks) == 6
    assert all(np.isnan(found[name]) for name in stacks)
    assert found["blk.1.attn_q.weight"] < 0.25


def test_an_encoder_is_read_whole(encoder_folder: OracleFolder, tmp_path: Path):
    found = encoded(encoder_folder("bert"), tmp_path)
    assert {"attn_q", "attn_output", "ffn_up", "ffn_down"} <= roles(found)
    assert np.nanmax(list(found.values())) < 0.25, found


@pytest.mark.parametrize("method", ["descent", "awq"])
@pytest.mark.parametrize("to", [["gguf", "-q", "Q4_0"], ["onnx", "-q", "int4"]], ids=["gguf", "onnx"])
def test_export_by_method(oracle_folder: OracleFolder, tmp_path: Path, to: list[str], method: str):
    text = tmp_path / "text.txt"
    text.write_text("a b c d e f g h i j k l m n o p " * 40)
    arguments = ["export", str(oracle_folder("llama")), "--to", *to, "-o", str(tmp_path / "out")]
    options = ["--calibration", str(text), "--method", method, "--no-proof"]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, done.exception
    (record,) = json.loads((tmp_path / "out" / "edgeq.json").read_text())["exports"]
    assert any(f"of text.txt ({method})" in note for note in record["notes"]), record["notes"]


FOLDED = {"attn_norm", "ffn_norm", "attn_output", "ffn_up"}
SEPARATE = FOLDED | {"attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_down"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", SEPARATE),
        ("gemma2", SEPARATE),  # its norms are 1 + weight
        ("phi3", FOLDED | {"attn_qkv", "ffn_down"}),  # values and what is gated are parts of matrices
        ("gpt2", FOLDED | {"attn_qkv"}),  # nothing is exact across its activation
    ],
)
def test_scales_that_were_folded_in_change_nothing(
    oracle_folder: OracleFolder, name: str, expected: set[str]
):
    source = SourceModel.open(oracle_folder(name))
    grid = BlockGrid("Q4_0")
    folded, _ = awq_source(source, lambda _: grid, RandomTokens(Path("text")))
    tokens = list(range(1, 60))
    changed = [s.name for s in source.specs.values() if (folded.array(s.name) != source.array(s.name)).any()]
    assert {stem.split(".")[2] for stem in changed} == expected
    before, after = (engine.from_source(each).logits(tokens) for each in (source, folded))
    np.testing.assert_allclose(after, before, atol=1e-4 * np.ptp(before))


def test_from_a_gguf_file_as_from_the_checkpoint(oracle_folder: OracleFolder, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("a b c d e f g h i j k l m n o p " * 40)
    direct, half, twice = (tmp_path / f"{name}.gguf" for name in ("direct", "half", "twice"))
    calibrated = ["-q", "Q4_0", "--calibration", str(text)]
    for source, out, options in (
        (oracle_folder("llama"), direct, calibrated),
        (oracle_folder("llama"), half, ["-q", "F32"]),
        (half, twice, calibrated),
    ):
        done = CliRunner().invoke(app, ["quantize", str(source), "-o", str(out), *options])
        assert done.exit_code == 0, done.exception
    with GGUFFile.open(direct) as first, GGUFFile.open(twice) as second:
        for name in ("blk.1.attn_q.weight", "blk.1.ffn_down.weight"):
            same = (first.rows(name) == second.rows(name)).mean()
            assert same > 0.95, f"{name}: rounding of the inputs may move a few codes, not {1 - same:.0%}"
