"""A family's operators as ONNX nodes, in plain operators; dialects have others for some of them.

Values are ``[batch, tokens, ...]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.convert.onnx_pooling import normalised, pooled
from edgeq.convert.source_rows import SourceRows
from edgeq.families import HyperParameters
from edgeq.families.ops import Activation, Norm, Pooling
from edgeq.families.rope import Rope
from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.formats.onnx.rows import RowReader, set_rows
from edgeq.source import ModelSource

_MASKED = -1e9  # added to the scores of keys that must not be seen; finite, so a fully masked row is no NaN


class OnnxOps:
    """``edgeq.families.ops.Ops`` over graph edges, in plain operators."""

    angle_axes: ClassVar[tuple[int, ...]] = (1, 3)  # where positions get axes to become angles

    def __init__(self, builder: GraphBuilder, source: ModelSource) -> None:
        self.b = builder
        self.source = source
        self.hp: HyperParameters = source.hp
        self.causal = source.family.kind == "decoder"
        self.cached = source.family.generates(self.hp)
        batch_tokens = ["batch_size", "tokens"]
        self.ids = builder.input("input_ids", ir.DataType.INT64, batch_tokens)
        mask_shape = ["batch_size", "total_tokens"] if self.cached else batch_tokens
        self.mask = builder.input("attention_mask", ir.DataType.INT64, mask_shape)
        self.extra: ir.Value | None = None
        if self.cached:
            self.extra = builder.input("position_ids", ir.DataType.INT64, batch_tokens)
        elif self.causal:
            self.extra = self._counted()
        self.past = [self._past(i) for i in range(self.hp.n_layers)] if self.cached else []
        self.present: list[tuple[ir.Value, ir.Value]] = []
        self._bias: dict[int, ir.Value] = {}
        self._angles: dict[Rope, tuple[ir.Value, ir.Value]] = {}

    def _counted(self) -> ir.Value:
        """The tokens' positions by the mask, on whichever side it pads, ``[batch, tokens]``; 0 for padding before."""
        seen = self.b.op("CumSum", self.mask, self.b.constant(1))
        return self.b.op("Max", self.b.op("Sub", seen, self.b.constant(1)), self.b.constant(0))

    def _past(self, layer: int) -> tuple[ir.Value, ir.Value]:
        shape: list[int | str] = ["batch_size", self.hp.n_kv_heads, "past_tokens", self.hp.head_dim]
        key, value = (
            self.b.input(f"past_key_values.{layer}.{part}", ir.DataType.FLOAT, shape)
            for part in ("key", "value")
        )
        return key, value

    def declare_cache_outputs(self) -> None:
        """Declare ``present.N.key|value`` for every layer."""
        shape: list[int | str] = ["batch_size", self.hp.n_kv_heads, "total_tokens", self.hp.head_dim]
        for layer, pair in enumerate(self.present):
            for part, value in zip(("key", "value"), pair, strict=True):
                self.b.output(value, f"present.{layer}.{part}", ir.DataType.FLOAT, shape)

    # --- inputs -------------------------------------------------------------------------------------------------
    def tokens(self) -> ir.Value:
        return self.ids

    def positions(self) -> ir.Value:
        if self.extra is not None:
            return self.extra
        return self.b.op("Range", self.b.constant(0), self._scalar_dim(self.ids, 1), self.b.constant(1))

    def token_types(self) -> ir.Value:
        return self.b.input("token_type_ids", ir.DataType.INT64, ["batch_size", "tokens"])

    # --- weights ------------------------------------------------------------------------------------------------
    def embed(self, stem: str, ids: ir.Value) -> ir.Value:
        return self.b.op("Gather", self._weight(stem + ".weight"), ids, name=f"{stem}/Gather")

    def first_row(self, stem: str) -> ir.Value:
        return self.b.op(
            "Gather", self._weight(stem + ".weight"), self.b.constant([0]), name=f"{stem}/Gather"
        )

    def norm(self, x: ir.Value, stem: str, kind: Norm, eps: float) -> ir.Value:
        scale = self._weight(stem + ".weight")
        if kind == "layer":
            bias = [self._weight(stem + ".bias")] if self.source.has(stem + ".bias") else []
            return self.b.op("LayerNormalization", x, scale, *bias, axis=-1, epsilon=eps, name=f"{stem}/Norm")
        square = self.b.op("Pow", x, self.b.constant(2.0, np.float32))
        mean = self.b.op("ReduceMean", square, axes=[-1], keepdims=1)
        root = self.b.op("Sqrt", self.b.op("Add", mean, self.b.constant(eps, np.float32)))
        return self.b.op("Mul", self.b.op("Div", x, root), scale, name=f"{stem}/Norm")

    def linear(self, x: ir.Value, stem: str) -> ir.Value:
        name = stem + ".weight"
        if name == "token_embd.weight":  # a tied head: the table is stored once and read transposed
            weight = self.b.op("Transpose", self._weight(name), perm=[1, 0], name=f"{stem}/Transpose")
        else:
            weight = self.matrix(name, SourceRows(self.source, name))
        y = self.b.op("MatMul", x, weight, name=f"{stem}/MatMul")
        if self.source.has(stem + ".bias"):
            y = self.b.op("Add", y, self._weight(stem + ".bias"), name=f"{stem}/Add")
        return y

    def split(self, x: ir.Value, widths: Sequence[int]) -> Sequence[ir.Value]:
        return self.b.split(x, widths, axis=-1)

    def matrix(self, name: str, reader: RowReader) -> ir.Value:
        """The rows as a weight for MatMul, ``[columns, rows]``."""
        rows, columns = reader.shape
        weight = self.b.weight(
            name, np.float32, (columns, rows), lambda: np.ascontiguousarray(reader.rows(0, rows).T)
        )
        set_rows(weight, reader)
        return weight

    def _weight(self, name: str) -> ir.Value:
        shape = self.source.shape(name)
        weight = self.b.weight(name, np.float32, shape, self._load(name))
        if len(shape) == 2:
            set_rows(weight, SourceRows(self.source, name))
        return weight

    def _load(self, name: str) -> Callable[[], NDArray[np.float32]]:
        def load() -> NDArray[np.float32]:
            array = self.source.array(name)
            self.source.release(name)
            return array

        return load

    # --- arithmetic ---------------------------------------------------------------------------------------------
    def wanted(self, x: ir.Value) -> ir.Value:
        return x

    def settled(self, x: ir.Value) -> ir.Value:
        return x

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.op("Add", a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.op("Mul", a, b)

    def scale(self, x: ir.Value, factor: float) -> ir.Value:
        return self.b.op("Mul", x, self.b.constant(factor, np.float32))

    def activation(self, x: ir.Value, kind: Activation) -> ir.Value:
        if kind in ("relu", "tanh"):
            return self.b.op(kind.capitalize(), x)
        if kind == "silu":
            return self.b.op("Mul", x, self.b.op("Sigmoid", x))
        if kind == "gelu":  # the pattern that ONNX Runtime fuses into one Gelu node
            erf = self.b.op("Erf", self.b.op("Div", x, self.b.constant(np.sqrt(2.0), np.float32)))
            product = self.b.op("Mul", x, self.b.op("Add", erf, self.b.constant(1.0, np.float32)))
            return self.b.op("Mul", product, self.b.constant(0.5, np.float32))
        cubic = self.b.op("Mul", self.b.op("Mul", x, x), self.scale(x, 0.044715))
        inner = self.scale(self.b.op("Add", x, cubic), math.sqrt(2 / math.pi))
        share = self.b.op("Add", self.b.op("Tanh", inner), self.b.constant(1.0, np.float32))
        return self.scale(self.b.op("Mul", x, share), 0.5)  # gelu_tanh

    # --- experts ------------------------------------------------------------------------------------------------
    def route(self, scores: ir.Value, used: int, normalised: bool) -> ir.Value:
        b = self.b
        weights, places = b.top_k(b.op("Softmax", scores, axis=-1), used)
        if normalised:
            weights = b.op("Div", weights, b.op("ReduceSum", weights, b.constant([-1]), keepdims=1))
        none = b.op("Mul", scores, b.constant(0.0, np.float32))
        return b.op("ScatterElements", none, places, weights, axis=-1)

    def experts(self, x: ir.Value, blk: str, weights: ir.Value, n_experts: int, kind: Activation) -> ir.Value:
        """Each expert reads the tokens that chose it, and adds to their rows of the sum."""
        b = self.b
        rows = b.op("Reshape", x, b.constant([-1, self.hp.hidden]))
        by_expert = b.op("Transpose", b.op("Reshape", weights, b.constant([-1, n_experts])), perm=[1, 0])
        total = b.op("Mul", rows, b.constant(0.0, np.float32))
        for expert in range(n_experts):
            weight = b.op("Gather", by_expert, b.constant(expert), axis=0)
            tokens = b.op("Transpose", b.op("NonZero", weight), perm=[1, 0])  # [chosen, 1]
            own = b.op("GatherND", rows, tokens)
            gate = self.activation(self._expert(own, blk + "ffn_gate_exps", expert), kind)
            h = b.op("Mul", gate, self._expert(own, blk + "ffn_up_exps", expert))
            y = self._expert(h, blk + "ffn_down_exps", expert)
            share = b.op("Unsqueeze", b.op("GatherND", weight, tokens), b.constant([1]))
            total = b.op("ScatterND", total, tokens, b.op("Mul", y, share), reduction="add")
        return b.op("Reshape", total, b.op("Shape", x))

    def _expert(self, x: ir.Value, stem: str, expert: int) -> ir.Value:
        """``x`` times one matrix of a stack."""
        weight = self.matrix(f"{stem}.{expert}.weight", SourceRows(self.source, stem + ".weight", expert))
        return self.b.op("MatMul", x, weight, name=f"{stem}.{expert}/MatMul")

    # --- attention ----------------------------------------------------------------------------------------------
    def heads(self, x: ir.Value, n_heads: int) -> ir.Value:
        split = self.b.op("Reshape", x, self.b.constant([0, 0, n_heads, self.hp.head_dim]))
        return self.b.op("Transpose", split, perm=[0, 2, 1, 3])  # [batch, heads, tokens, head_dim]

    def rope(self, x: ir.Value, rope: Rope) -> ir.Value:
        cos, sin = self._rope_angles(rope)
        half, rest = rope.dim // 2, self.hp.head_dim - rope.dim
        low, high, *still = self.b.split(x, [half, half, rest] if rest else [half, half], axis=-1)
        new_low = self.b.op("Sub", self.b.op("Mul", low, cos), self.b.op("Mul", high, sin))
        new_high = self.b.op("Add", self.b.op("Mul", high, cos), self.b.op("Mul", low, sin))
        return self.b.op("Concat", new_low, new_high, *still, axis=-1)

    def _rope_angles(self, rope: Rope) -> tuple[ir.Value, ir.Value]:
        """cos and sin of the angles, computed once per graph: here ``[batch, 1, tokens, dim / 2]``."""
        if rope not in self._angles:
            positions = self.b.op("Cast", self.positions(), to=ir.DataType.FLOAT)
            # An encoder's positions have no batch axis.
            axes = list(self.angle_axes) if self.causal else [0, 1, 3]
            column = self.b.op("Unsqueeze", positions, self.b.constant(axes))
            angles = self.b.op("Mul", column, self._frequencies(rope))
            self._angles[rope] = (
                self._times(self.b.op("Cos", angles), rope.magnitude),
                self._times(self.b.op("Sin", angles), rope.magnitude),
            )
        return self._angles[rope]

    def _times(self, x: ir.Value, factor: float) -> ir.Value:
        return x if factor == 1.0 else self.scale(x, factor)

    def _frequencies(self, rope: Rope) -> ir.Value:
        """Radians per position ``[dim / 2]``; a LongRope's follow from how many tokens there are so far."""
        short = self.b.constant(rope.frequencies(), np.float32)
        if rope.longrope is None:
            return short
        many = self.b.op("Greater", self._dim(self.mask, 1), self.b.constant([rope.longrope.original]))
        return self.b.op("Where", many, self.b.constant(rope.frequencies(long=True), np.float32), short)

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
        hp, b = self.hp, self.b
        group = hp.n_heads // hp.n_kv_heads
        if self.cached:
            past_key, past_value = self.past[layer]
            k = b.op("Concat", past_key, k, axis=2)
            v = b.op("Concat", past_value, v, axis=2)
            self.present.append((k, v))
        q = b.op("Mul", q, b.constant(scale, np.float32))
        if group > 1:  # the query heads of one key head become one longer matrix, so keys are not repeated
            q = b.op("Reshape", q, b.constant([0, hp.n_kv_heads, -1, hp.head_dim]))
        scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]), name=f"blk.{layer}.attn/Scores")
        if cap:
            scores = self.scale(b.op("Tanh", self.scale(scores, 1 / cap)), cap)
        if group > 1:
            tokens, total = self._dim(self.ids, 1), self._dim(self.mask, 1)
            wide = self._vector([0, hp.n_kv_heads, group], tokens, total)
            flat = self._vector([0, hp.n_kv_heads, -1], total)
            scores = b.op("Reshape", scores, wide)
            weights = b.op("Softmax", b.op("Add", scores, self._mask_bias(5, window)), axis=-1)
            weights = b.op("Reshape", weights, flat)
        else:
            weights = b.op("Softmax", b.op("Add", scores, self._mask_bias(4, window)), axis=-1)
        mixed = b.op("MatMul", weights, v, name=f"blk.{layer}.attn/Mix")
        if group > 1:
            mixed = b.op(
                "Reshape", mixed, self._vector([0, hp.n_heads], self._dim(self.ids, 1), [hp.head_dim])
            )
        joined = b.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return b.op("Reshape", joined, b.constant([0, 0, hp.n_heads * hp.head_dim]))

    def _mask_bias(self, rank: int, window: int) -> ir.Value:
        """What is added to the scores: 0 or a large negative number, ``[batch, 1.., 1 or tokens, total_tokens]``."""
        if window not in self._bias:
            b = self.b
            seen = b.op(
                "Unsqueeze",
                b.op("Cast", self.mask, to=ir.DataType.BOOL),
                b.constant(list(range(1, rank - 1))),
            )
            if self.causal:
                tokens, total = self._scalar_dim(self.ids, 1), self._scalar_dim(self.mask, 1)
                zero, one = b.constant(0), b.constant(1)
                key = b.op("Range", zero, total, one)
                query = b.op("Add", b.op("Range", zero, tokens, one), b.op("Sub", total, tokens))
                query = b.op("Unsqueeze", query, b.constant([1]))
                seen = b.op("And", seen, b.op("LessOrEqual", key, query))
                if window:
                    too_early = b.op("Sub", query, b.constant(window))
                    seen = b.op("And", seen, b.op("Greater", key, too_early))
            elif window:
                place = self.positions()
                distance = b.op("Abs", b.op("Sub", place, b.op("Unsqueeze", place, b.constant([1]))))
                seen = b.op("And", seen, b.op("LessOrEqual", distance, b.constant(window // 2)))
            visible, masked = b.constant(0.0, np.float32), b.constant(_MASKED, np.float32)
            self._bias[window] = b.op("Where", seen, visible, masked)
        return self._bias[window]

    def pool(self, x: ir.Value, pooling: Pooling) -> ir.Value:
        return pooled(self.b, x, pooling, self.mask, self.positions)

    def unit(self, x: ir.Value) -> ir.Value:
        return normalised(self.b, x)

    # --- shapes -------------------------------------------------------------------------------------------------
    def _scalar_dim(self, x: ir.Value, axis: int) -> ir.Value:
        return self.b.op("Gather", self.b.op("Shape", x), self.b.constant(axis))

    def _dim(self, x: ir.Value, axis: int) -> ir.Value:
        return self.b.op("Gather", self.b.op("Shape", x), self.b.constant([axis]))

    def _vector(self, *parts: list[int] | ir.Value) -> ir.Value:
        """Concatenate integers and one-element shape values into a shape."""
        values = [part if isinstance(part, ir.Value) else self.b.constant(part) for part in parts]
        return self.b.op("Concat", *values, axis=0)
