"""Calibrated encoding of families of every build: stacked experts, encoders, fused and rotated projections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.calibration.samples import Calibration
from edgeq.convert import gguf_file
from edgeq.convert.calibrated import encoded_tensors
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.formats.blocks import by_name
from edgeq.source import SourceModel


class RandomTokens(Calibration):
    """Two sequences of any tokens."""

    def samples(self, model, tokenizer) -> list[list[int]]:
        return np.random.default_rng(0).integers(1, model.hp.vocab, (2, 48)).tolist()


OracleFolder = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SourceModel, "tokenizer", lambda self: None)


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
