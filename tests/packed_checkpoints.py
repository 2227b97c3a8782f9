"""Checkpoints in the layouts of GPTQ, AWQ, bitsandbytes and FP8, packed plainly from what their authors document.

Each packer takes a weight ``[out, in]`` and returns the tensors under their endings and the values they stand for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

TINYLM = Path(__file__).parent / "assets" / "tinylm"
Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]
Packed = tuple[Tensors, Floats]

NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
       1.0]  # fmt: skip

# Of eight magnitudes, then the same below zero (bitsandbytes' get_4bit_type).
FP4 = [sign * x / 12 for sign in (1, -1) for x in (0, 0.0625, 8, 12, 4, 6, 2, 3)]


def pack_words(codes: NDArray[Any], bits: int, order: list[int] | None = None) -> NDArray[np.int32]:
    """The last axis into 32-bit words: code ``order[i]`` of each run goes to bits i·b and up."""
    per_word = 32 // bits
    runs = codes.astype(np.uint32).reshape(*codes.shape[:-1], -1, per_word)
    words = np.zeros(runs.shape[:-1], np.uint32)
    for i, code in enumerate(order or range(per_word)):
        words |= runs[..., code] << np.uint32(i * bits)
    return words.view(np.int32)


def to_grid(
    weight: Floats, groups: NDArray[Any], bits: int, sym: bool, short: bool = False
) -> tuple[NDArray[Any], ...]:
    """Codes ``[out, in]``, float16 scales ``[g, out]`` and zeros ``[g, out]`` by the range of each group.

    ``short`` gives scales 7 significant bits, so that scale · zero is a float16 number for any zero of 4 bits.
    """
    top = 2**bits - 1
    scales = np.empty((groups.max() + 1, len(weight)), np.float16)
    zeros = np.empty(scales.shape, np.int64)
    codes = np.empty(weight.shape, np.int64)
    for g in range(len(scales)):
        part = weight[:, groups == g]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if sym:
            high = np.maximum(-low, high)
            low = -high
        scales[g] = (high - low) / top
        if short:
            scales[g] = ((scales[g].view(np.uint16) + 8) & 0xFFF0).view(np.float16)
        zeros[g] = (top + 1) // 2 if sym else np.round(-low / scales[g].astype(np.float32))
        raw = np.round(part / scales[g].astype(np.float32)[:, None]) + zeros[g][:, None]
        codes[:, groups == g] = np.clip(raw, 0, top)
    return codes, scales, np.clip(zeros, 0, top)


def from_grid(codes: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any], groups: NDArray[Any]) -> Floats:
    """The straightforward formula."""
    return scales.astype(np.float32).T[:, groups] * (codes - zeros.T[:, groups]).astype(np.float32)


def column_groups(columns: int, group_size: int, act_order: bool) -> NDArray[np.int32]:
    groups = (np.arange(columns) // (columns if group_size == -1 else group_size)).astype(np.int32)
    return np.random.default_rng(columns).permutation(groups) if act_order else groups


def gptq(
    weight: Floats,
    bits: int = 4,
    group_size: int = 32,
    sym: bool = False,
    v2: bool = False,
    act_order: bool = False,
    short: bool = False,
) -> Packed:
    groups = column_groups(weight.shape[1], group_size, act_order)
    codes, scales, zeros = to_grid(weight, groups, bits, sym, short)
    stored = zeros if v2 else (zeros - 1) % 2**bits
    return {
        "qweight": np.ascontiguousarray(pack_words(codes, bits).T),
        "qzeros": pack_words(stored, bits),
        "scales": scales,
        "g_idx": groups,
    }, from_grid(codes, scales, zeros, groups)


def awq(weight: Floats, group_size: int = 32, sym: bool = False, short: bool = False) -> Packed:
    groups = column_groups(weight.shape[1], group_size, False)
    codes, scales, zeros = to_grid(weight, groups, 4, sym, short)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return {
        "qweight": pack_words(codes.T, 4, order),
        "qzeros": pack_words(zeros, 4, order),
        "scales": scales,
    }, from_grid(codes, scales, zeros, groups)


def fp4(weight: Floats, block: int = 64, nested: bool = False) -> Packed:
    return nf4(weight, block, nested, kind="fp4")


def nf4(
    weight: Floats, block: int = 64, nested: bool = False, nested_block: int = 256, kind: str = "nf4"
) -> Packed:
    table = np.array({"nf4": NF4, "fp4": FP4}[kind], np.float32)
    flat = weight.reshape(-1)
    blocks = np.pad(flat, (0, -flat.size % block)).reshape(-1, block)
    absmax = np.abs(blocks).max(axis=1)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16"}
    state["shape"] = list(weight.shape)
    tensors: Tensors = {"weight.quant_map": table}
    if nested:
        offset = np.float32(absmax.mean())
        rest = absmax - offset
        runs = np.pad(rest, (0, -rest.size % nested_block)).reshape(-1, nested_block)
        tops = np.abs(runs).max(axis=1)
        dynamic = np.linspace(-1, 1, 256, dtype=np.float32)
        coded = np.abs((runs / tops[:, None])[..., None] - dynamic).argmin(axis=-1).astype(np.uint8)
        coded = coded.reshape(-1)[: absmax.size]
        absmax = dynamic[coded] * np.repeat(tops, nested_block)[: absmax.size] + offset
        tensors |= {"weight.absmax": coded, "weight.nested_absmax": tops, "weight.nested_quant_map": dynamic}
        state |= {"nested_blocksize": nested_block, "nested_dtype": "float32", "nested_offset": float(offset)}
    else:
        tensors["weight.absmax"] = absmax
    scales = np.repeat(absmax, block)[: flat.size]
    codes = np.abs((flat / scales)[:, None] - table).argmin(axis=1)
    pairs = np.pad(codes, (0, codes.size % 2)).reshape(-1, 2)
    tensors["weight"] = (pairs[:, :1] * 16 + pairs[:, 1:]).astype(np.uint8)
    tensors[f"weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return tensors, (table[codes] * scales).reshape(weight.shape)


def int8(weight: Floats) -> Packed:
    scb = np.abs(weight).max(axis=1)
    codes = np.round(weight / scb[:, None] * 127).astype(np.int8)
    tensors = {"weight": codes, "SCB": scb, "weight_format": np.array(0, np.uint8)}
    return tensors, codes.astype(np.float32) * scb[:, None] * np.float32(1 / 127)


def fp8(
    weight: Floats, tile: tuple[int, int], ending: str = "weight_scale_inv", dtype: Any = np.float32
) -> Packed:
    """``tile`` may be as large as the weight (one scale) or one row (its width)."""
    high, wide = (min(size, limit) for size, limit in zip(tile, weight.shape, strict=True))
    scales = np.empty((-(-weight.shape[0] // high), -(-weight.shape[1] // wide)), dtype)
    for i, j in np.ndindex(*scales.shape):
        part = weight[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
        scales[i, j] = np.abs(part).max() / 224  # half the range: a scale may be rounded down
    spread = np.repeat(np.repeat(scales, high, axis=0), wide, axis=1)[: weight.shape[0], : weight.shape[1]]
    spread = spread.astype(np.float32)
    codes = (weight / spread).astype(ml_dtypes.float8_e4m3fn)
    return {"weight": codes, ending: scales}, codes.astype(np.float32) * spread


def write(folder: Path, settings: dict[str, Any], pack: Callable[[Floats], Packed]) -> dict[str, Floats]:
    """TinyLM with its linear layers packed; the values that each packed weight stands for."""
    folder.mkdir(exist_ok=True)
    for file in TINYLM.glob("*.json"):
        shutil.copyfile(file, folder / file.name)
    config = json.loads((TINYLM / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    tensors: Tensors = {}
    meant = {}
    for name, value in load_file(TINYLM / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = value
            continue
        parts, meant[name] = pack(value.astype(np.float32))
        base = name.removesuffix("weight")
        tensors |= {base + ending: np.ascontiguousarray(part) for ending, part in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    return meant
