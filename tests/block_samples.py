"""Rows that block types are tested on: shapes of real weights, and the corners of the encoders."""

from __future__ import annotations

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from edgeq.formats.blocks import BlockType

ROWS, COLUMNS = 24, 1024
_TINYLM = Path(__file__).parent / "assets" / "tinylm" / "model.safetensors"


@functools.cache
def float_rows() -> dict[str, np.ndarray]:
    """Name to float32 [ROWS, COLUMNS], all finite, all within every type's range."""
    rng = np.random.default_rng(7)
    gauss = rng.standard_normal((ROWS, COLUMNS))
    outliers = gauss * 0.02
    outliers[:, ::97] *= 50
    sub_block = np.arange(COLUMNS) // 32
    rows = {
        "gauss": gauss * 0.02,
        "laplace": rng.laplace(size=gauss.shape) * 0.1,
        "outliers": outliers,
        "constant": np.repeat(gauss[:, :1], COLUMNS, axis=1),
        "positive": np.abs(gauss),
        "negative": -np.abs(gauss),
        "zeros": np.zeros_like(gauss),
        "negative zeros": -np.zeros_like(gauss),
        "sparse": np.where(rng.random(gauss.shape) < 0.02, gauss, 0),
        "integers": rng.integers(-8, 9, gauss.shape),
        "large": gauss * 1000,
        "subnormal half scales": gauss * 1e-7,
        "below half": gauss * 1e-15,
        "subnormal floats": gauss * 1e-39,
        "smallest floats": gauss * 1e-43,
        "mixed scales": gauss * 10.0 ** rng.integers(-8, 3, (ROWS, COLUMNS // 32)).repeat(32, axis=1),
        "huge min, tiny range": np.where(sub_block % 2, -200 + gauss * 1e-5, -1e4),
    }
    return {name: np.ascontiguousarray(values, np.float32) for name, values in rows.items()}


@functools.cache
def importances() -> dict[str, np.ndarray | None]:
    """Name to importance float32 [COLUMNS] or None."""
    rng = np.random.default_rng(8)
    weights = {
        "none": None,
        "exponential": rng.exponential(size=COLUMNS),
        "half of them zero": rng.random(COLUMNS) < 0.5,
        "zero blocks": np.arange(COLUMNS) >= COLUMNS // 2,
    }
    return {k: None if w is None else np.ascontiguousarray(w, np.float32) for k, w in weights.items()}


@functools.cache
def trained_rows() -> dict[str, np.ndarray]:
    """Name to float32 [rows, columns]: some of TinyLM's matrices (bfloat16 in the file)."""
    tensors = load_file(_TINYLM)
    wanted = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]
    wanted += ["model.layers.3.mlp.down_proj.weight", "model.layers.5.mlp.up_proj.weight"]
    assert tensors[wanted[0]].dtype == ml_dtypes.bfloat16
    return {name: tensors[name][:256].astype(np.float32) for name in wanted}


def random_blocks(block_type: type[BlockType], n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, block_bytes]: random bits, but finite where the type holds floats."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, block_type.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        floats = block_type.decode_blocks(blocks)
    blocks[~np.isfinite(floats).all(axis=1)] = 0
    return blocks


def differences(block_type: type[BlockType], ours: np.ndarray, theirs: np.ndarray) -> str:
    """Empty when equal, else how many blocks differ and the first of them."""
    wrong = (ours != theirs).reshape(-1, block_type.block_bytes).any(axis=1)
    if not wrong.any():
        return ""
    first = int(wrong.argmax())
    pair = [a.reshape(-1, block_type.block_bytes)[first].tolist() for a in (ours, theirs)]
    which = f"{wrong.sum()} of {wrong.size} {block_type.name} blocks differ"
    return f"{which}; block {first}: {pair[0]} != {pair[1]}"


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal float32 arrays, −0 and 0 apart, any NaN like any other."""
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


def weighted_errors(
    block_type: type[BlockType], values: np.ndarray, importance: np.ndarray | None, encoded: np.ndarray
) -> np.ndarray:
    """Σ importance · (x − x̂)² of each block, float64 [blocks]."""
    off = block_type.decode(encoded, values.shape[1]).astype(np.float64) - values
    weights = 1.0 if importance is None else importance.astype(np.float64)
    return (weights * off**2).reshape(-1, block_type.block_values).sum(axis=1)
