"""The dialect of ONNX Runtime's own operators (com.microsoft), as onnxruntime-genai's graphs have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.convert.dialects.base import DecoderOps, dialect, partial_rope
from edgeq.convert.source_rows import SourceRows
from edgeq.families.ops import Activation
from edgeq.families.rope import Rope
from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.formats.onnx.passes.skip_norm import skip_norm
from edgeq.formats.onnx.rows import StackedRows
from edgeq.source import ModelSource

_DOMAIN = "com.microsoft"
_QKV = ("attn_q", "attn_k", "attn_v")
_ACTIVATIONS = {"silu": "QuickGelu", "gelu": "Gelu", "gelu_tanh": "FastGelu"}


@dialect("ort")
class OrtOps(DecoderOps):
    """GroupQueryAttention after one product for queries, keys and values; norms take the residual sum along.

    Angles are computed for the tokens at hand and given to RotaryEmbedding as a table with one row for each of them:
    GroupQueryAttention would rotate by itself, but counts positions from the left edge, so that a batch padded on the
    left answered wrongly, and wants a table as long as the context in the file. For the same reason padding reaches it
    as a bias, not as lengths. (Before 1.24 ONNX Runtime capped that bias with the scores, where a model caps them.)
    That costs no time that could be measured (``benchmarks/onnx_decoder.py``).
    """

    form = "ort"

    def __init__(self, builder: GraphBuilder, source: ModelSource) -> None:
        super().__init__(builder, source)
        self._waiting: dict[str, ir.Value] = {}  # keys and values that came with the queries
        self._whole: dict[tuple[ir.Value, ...], ir.Value] = {}  # what queries, keys and values were cut from
        self._tables: dict[Rope, tuple[ir.Value, ir.Value]] = {}

    @classmethod
    def finish(cls, model: ir.Model) -> None:
        skip_norm(model)

    def rms_norm(self, x: ir.Value, scale: ir.Value, eps: float, name: str) -> ir.Value:
        # It has no domain in ONNX Runtime, and is no operator of ONNX; stash_type 1: the mean is taken in float32.
        return self.b.op(
            "SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=eps, stash_type=1, name=name
        )

    def activation(self, x: ir.Value, kind: Activation) -> ir.Value:
        if kind not in _ACTIVATIONS:
            return super().activation(x, kind)
        attributes: dict[str, Any] = {"alpha": 1.0} if kind == "silu" else {}
        return self.b.op(_ACTIVATIONS[kind], x, domain=_DOMAIN, **attributes)

    # --- one product for queries, keys and values ---------------------------------------------------------------
    def linear(self, x: ir.Value, stem: str) -> ir.Value:
        if stem in self._waiting:
            return self._waiting.pop(stem)
        blk, _, role = stem.rpartition(".")
        stems = [f"{blk}.{each}" for each in _QKV]
        if role != _QKV[0] or not self._stackable(stems):
            return super().linear(x, stem)
        readers = [SourceRows(self.source, each + ".weight") for each in stems]
        weight = self.matrix(f"{blk}.attn_qkv.weight", StackedRows(readers))
        whole = self.b.op("MatMul", x, weight, name=f"{blk}.attn_qkv/MatMul")
        if self.source.has(stem + ".bias"):
            width = sum(reader.shape[0] for reader in readers)
            bias = self.b.weight(f"{blk}.attn_qkv.bias", np.float32, (width,), lambda: self._biases(stems))
            whole = self.b.op("Add", whole, bias, name=f"{blk}.attn_qkv/Add")
        parts = self.b.split(whole, [reader.shape[0] for reader in readers], axis=-1)
        self._waiting.update(zip(stems[1:], parts[1:], strict=True))
        self._whole[tuple(parts)] = whole
        return parts[0]

    def _stackable(self, stems: list[str]) -> bool:
        """Whether the layers are there, have all a bias or none, and others quantized them alike."""
        source = self.source
        if len({source.has(stem + ".bias") for stem in stems}) > 1:
            return False
        readers = [SourceRows(source, stem + ".weight") for stem in stems if source.has(stem + ".weight")]
        return len(readers) == len(stems) and StackedRows.fit(readers)

    def _biases(self, stems: list[str]) -> NDArray[np.float32]:
        return np.concatenate([self.source.array(stem + ".bias") for stem in stems])

    # --- attention ----------------------------------------------------------------------------------------------
    def rotated(self, x: ir.Value, rope: Rope, n_heads: int) -> ir.Value:
        b = self.b
        if rope not in self._tables:
            flat = b.constant([-1, rope.dim // 2])
            cos, sin = self._rope_angles(rope)
            self._tables[rope] = b.op("Reshape", cos, flat), b.op("Reshape", sin, flat)
        return b.op(
            "RotaryEmbedding",
            x,
            self._table_rows(),
            *self._tables[rope],
            domain=_DOMAIN,
            num_heads=n_heads,
            **partial_rope(rope, self.hp.head_dim),
        )

    def _table_rows(self) -> ir.Value:
        """Each token's row of the table of angles, ``[batch, tokens]``."""
        b = self.b
        return self.once(
            "rows",
            lambda: b.op(
                "Reshape",
                b.op("Range", b.constant(0), b.op("Size", self.ids), b.constant(1)),
                b.op("Shape", self.ids),
            ),
        )

    def attention(
        self,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        *,
        layer: int,
        scale: float,
        causal: bool,
        window: int = 0,
        cap: float = 0.0,
    ) -> ir.Value:
        b = self.b
        parts = self.joined(q), self.joined(k), self.joined(v)
        whole = self._whole.get(parts)
        inputs = parts if whole is None else (whole, None, None)
        total = self.once("total", lambda: b.op("Cast", self._scalar_dim(self.mask, 1), to=ir.DataType.INT32))
        y, key, value = b.op_many(
            "GroupQueryAttention",
            *inputs,
            *self.past[layer],
            self.once("last", lambda: self._last_place(total)),
            total,
            *(None, None, None),  # tables of angles, positions
            self._mask_bias(4, 0),
            outputs=3,
            domain=_DOMAIN,
            name=f"blk.{layer}.attn",
            num_heads=self.hp.n_heads,
            kv_num_heads=self.hp.n_kv_heads,
            scale=scale,
            softcap=cap,
            local_window_size=window or -1,
        )
        self.present.append((key, value))
        return y

    def _last_place(self, total: ir.Value) -> ir.Value:
        """Where each sequence's last token stands, int32 ``[batch]``: all at the end, padding is on the left."""
        last = self.b.op("Sub", total, self.b.constant(1, np.int32))
        return self.b.op("Expand", last, self._dim(self.ids, 0))
