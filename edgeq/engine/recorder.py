"""``edgeq.families.ops.Ops`` that computes nothing and writes down the steps that would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from edgeq.engine.packed import FloatMatrix, PackedWeights
from edgeq.engine.steps import Buffer, Place, Step, Value, Word, constant, floats
from edgeq.errors import EdgeqError
from edgeq.families.ops import Activation, Norm
from edgeq.families.rope import Rope
from edgeq.kernels_cpu.attention import ROWS as QUERIES
from edgeq.kernels_cpu.cached import Cached
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import Packed
from edgeq.kernels_cpu.products.panels import SEGMENT
from edgeq.kernels_cpu.products.tiles import operand_parts, unpacked_bytes
from edgeq.kernels_cpu.steps import (
    STATE_FREE,
    activations,
    attention,
    elementwise,
    float_product,
    norm,
    product,
    rope,
    rows,
)

TOKENS, POSITIONS = Value(Buffer(0, 0), 0), Value(Buffer(0, 0), 0)  # what ``embed`` looks up
_ACTIVATIONS = {
    "silu": elementwise.SILU,
    "gelu": elementwise.GELU,
    "gelu_tanh": elementwise.GELU_TANH,
    "relu": elementwise.RELU,
    "tanh": elementwise.TANH,
}


class NotRecordableError(EdgeqError):
    """The forward pass has what no step does."""


@dataclass(frozen=True)
class Input:
    """Rows of a table, by token or by position, to be written before a run."""

    name: str
    ids: Value
    value: Value


class Recorder:
    """The forward pass of up to ``rows`` tokens, as steps."""

    def __init__(
        self, weights: PackedWeights, rows: int, last_only: bool, isa: Isa, cached: Cached
    ) -> None:
        self.weights, self.n_rows, self.last_only = weights, rows, last_only
        self.isa, self.cached = isa, cached
        self.steps: list[Step] = []
        self.inputs: list[Input] = []
        self.state_words = STATE_FREE
        self.ropes: dict[Rope, int] = {}  # the word of the state with the address of its frequencies
        self.layers: dict[int, int] = {}  # that of a layer's keys, which its values follow
        self._angles: dict[Rope, Value] = {}
        self._cache_buffers: dict[int, Buffer] = {}
        self._quantized: dict[tuple[object, ...], tuple[Buffer, Buffer, Buffer]] = {}
        self._widened: dict[Buffer, Buffer] = {}

    # --- what stands at the beginning -----------------------------------------------------------------------------
    def tokens(self) -> Value:
        return TOKENS

    def positions(self) -> Value:
        return POSITIONS

    def token_types(self) -> Value:
        raise NotRecordableError("encoders are not recorded")

    def embed(self, stem: str, ids: Value) -> Value:
        value = floats(self.n_rows, self.weights.columns(stem + ".weight"))
        self.inputs.append(Input(stem + ".weight", ids, value))
        return value

    # --- views ----------------------------------------------------------------------------------------------------
    def split(self, x: Value, widths: Sequence[int]) -> Sequence[Value]:
        at = [sum(widths[:i]) for i in range(len(widths))]
        return [Value(x.buffer, width, x.offset + 4 * a) for width, a in zip(widths, at, strict=True)]

    def heads(self, x: Value, n_heads: int) -> Value:
        return replace(x, heads=n_heads)

    # --- rows -----------------------------------------------------------------------------------------------------
    def norm(self, x: Value, stem: str, kind: Norm, eps: float) -> Value:
        out = floats(x.rows, x.width, x.heads)
        bias = self._vector(stem + ".bias") if self.weights.has(stem + ".bias") else 0
        words: list[Word] = [x, out, x.row_bytes, out.row_bytes, x.heads, x.width // x.heads]
        words += [self._vector(stem + ".weight"), bias, int(kind == "layer"), float(eps)]
        return self._row_step(norm.normalise, words, [x], out)

    def rope(self, x: Value, rope_: Rope) -> Value:
        if rope_ not in self._angles:
            self._angles[rope_] = self._made_angles(x.rows, rope_)
        angles = self._angles[rope_]
        out = floats(x.rows, x.width, x.heads)
        words: list[Word] = [x, out, angles, x.row_bytes, out.row_bytes, angles.row_bytes]
        words += [x.heads, x.width // x.heads, rope_.dim // 2]
        return self._row_step(rope.rotate, words, [x, angles], out)

    def _made_angles(self, n_rows: int, rope_: Rope) -> Value:
        self.ropes[rope_] = word = self._state(1)
        out = floats(n_rows, rope_.dim)
        words: list[Word] = [Place.STATE, word, rope_.dim // 2, out, out.row_bytes, float(rope_.magnitude)]
        return self._row_step(rope.angles, words, [], out)

    def activation(self, x: Value, kind: Activation) -> Value:
        return self._transform(x, _ACTIVATIONS[kind], 0.0)

    def scale(self, x: Value, factor: float) -> Value:
        return self._transform(x, elementwise.SCALE, factor)

    def add(self, a: Value, b: Value) -> Value:
        return self._combine(a, b, elementwise.ADD)

    def mul(self, a: Value, b: Value) -> Value:
        return self._combine(a, b, elementwise.MUL)

    def wanted(self, x: Value) -> Value:
        if not self.last_only or x.rows == 1:
            return x
        out = floats(1, x.width)
        words: list[Word] = [Place.STATE, x, x.row_bytes, out, x.width]
        return self._row_step(rows.last_row, words, [x], out)

    def _transform(self, x: Value, which: int, factor: float) -> Value:
        out = floats(x.rows, x.width, x.heads)
        words: list[Word] = [which, x.width, x, out, x.row_bytes, out.row_bytes, float(factor)]
        return self._row_step(elementwise.transform, words, [x], out)

    def _combine(self, a: Value, b: Value, which: int) -> Value:
        out = floats(a.rows, a.width, a.heads)
        words: list[Word] = [which, a.width, a, b, out, a.row_bytes, b.row_bytes, out.row_bytes]
        return self._row_step(elementwise.combine, words, [a, b], out)

    def _row_step(self, kernel: object, words: list[Word], reads: Sequence[Value], out: Value) -> Value:
        buffers = [value.buffer for value in reads]
        self.steps.append(Step(kernel, self.isa, words, buffers, [out.buffer], rows=out.rows))
        return out

    # --- products -------------------------------------------------------------------------------------------------
    def linear(self, x: Value, stem: str) -> Value:
        operand = self.weights.operand(stem + ".weight")
        bias = self._vector(stem + ".bias") if self.weights.has(stem + ".bias") else None
        base: Word = 0 if bias is None else bias
        if operand is None:
            raise NotRecordableError(f"{stem}.weight: there is no product for its type")
        return (self._float_product if isinstance(operand, FloatMatrix) else self._product)(x, operand, base)

    def _float_product(self, x: Value, matrix: FloatMatrix, base: Word) -> Value:
        out, n = floats(x.rows, len(matrix.rows)), len(matrix.rows)
        words: list[Word] = [matrix.rows, matrix.columns, n, x, x.row_bytes, out, out.row_bytes, base, 0]
        work = matrix.columns * x.rows * 2  # worth as much time as twice as many integers
        kind = float_product.FloatWeights(matrix.type_name, self.isa)
        step = Step(float_product.product_of_row, kind, words, [x.buffer], [out.buffer], items=n, work=work)
        if x.rows > 1:
            words.append(Place.STATE)
            step.kernel, step.scratch = float_product.product_of_rows, float_product.SCRATCH
            step.items, step.work = -(-n // float_product.GROUP), work * float_product.GROUP
        step.base = 7
        self.steps.append(step)
        return out

    def _product(self, x: Value, packed: Packed, bias: Word) -> Value:
        layout, many = packed.layout, x.rows > 1
        panels, blocks, block_bytes = packed.data.shape
        codes, scales, sums = self._quantize(x, packed)
        if many and operand_parts(layout) == 2:
            codes = self._widen(codes, packed)
        out = floats(x.rows, packed.n)
        words: list[Word] = [packed.data, blocks, block_bytes, layout.rows, codes, scales, sums]
        words += [layout.format.block, sums.row_bytes // 4 // blocks, out, out.row_bytes, bias, 0]
        work = layout.rows * packed.columns * x.rows
        step = Step(
            product.product_of_row, layout, words, [codes, scales, sums], [out.buffer], items=panels, work=work
        )
        step.base = 11
        if many:
            words.append(Place.STATE)
            step.kernel = product.product_of_rows
            segment = max(1, SEGMENT // layout.format.block)
            step.scratch = 64 + min(segment, blocks) * unpacked_bytes(layout)
        self.steps.append(step)
        return out

    def _quantize(self, x: Value, packed: Packed) -> tuple[Buffer, Buffer, Buffer]:
        """Codes, scales and sums of x as the weights want them: once for all weights that want the same."""
        form = packed.layout.format
        key = (x.buffer, x.offset, x.width, form.activation, form.block, form.sub)
        if key not in self._quantized:
            blocks, sub = x.width // form.block, form.sub or 0
            n_words = x.width // (2 * sub) if sub else blocks
            made = [Buffer(x.rows, row_bytes) for row_bytes in (x.width, 4 * blocks, 4 * n_words)]
            words: list[Word] = [x, x.row_bytes, x.width, *made, form.block, sub]
            words.append(activations.FLAGS[form.activation])
            self.steps.append(Step(activations.quantize, self.isa, words, [x.buffer], made, rows=x.rows))
            self._quantized[key] = (made[0], made[1], made[2])
        return self._quantized[key]

    def _widen(self, codes: Buffer, packed: Packed) -> Buffer:
        if codes not in self._widened:
            wide = Buffer(codes.rows, 2 * codes.row_bytes)
            words: list[Word] = [codes, codes.row_bytes, packed.layout.lanes, wide]
            kernel, kind = activations.widen_rows, packed.layout
            self.steps.append(Step(kernel, kind, words, [codes], [wide], rows=codes.rows))
            self._widened[codes] = wide
        return self._widened[codes]

    # --- attention ------------------------------------------------------------------------------------------------
    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        *,
        layer: int,
        scale: float,
        causal: bool,
        window: int = 0,
        cap: float = 0.0,
    ) -> Value:
        width, group = q.width // q.heads, q.heads // k.heads
        if not causal or width % 16:
            raise NotRecordableError("attention is recorded of decoders, with heads of a multiple of 16 values")
        self.layers[layer] = word = self._state(2)
        cache = Buffer(0, 0)
        words: list[Word] = [Place.STATE, word, k, v, k.row_bytes, v.row_bytes, k.heads, width]
        scratch = 16 * width
        self.steps.append(
            Step(
                attention.append,
                self.cached,
                words,
                [k.buffer, v.buffer],
                [cache],
                rows=k.rows,
                scratch=scratch,
            )
        )
        out = floats(q.rows, q.width)
        tiles = -(-q.rows * group // QUERIES)
        words = [Place.STATE, word, q, out, q.row_bytes, out.row_bytes, k.heads, group, width, tiles]
        words += [1, window, float(scale), float(cap)]
        work = QUERIES * width * 2 * max(256, q.rows)
        step = Step(attention.attend, self.cached, words, [q.buffer, cache], [out.buffer])
        step.items, step.work = k.heads * tiles, work
        self.steps.append(step)
        return out

    def route(self, scores: Value, used: int, normalised: bool) -> Value:
        raise NotRecordableError("experts are not recorded")

    def experts(self, x: Value, blk: str, weights: Value, n_experts: int, kind: Activation) -> Value:
        raise NotRecordableError("experts are not recorded")

    def _vector(self, name: str) -> Word:
        return constant(self.weights.vector(name))

    def _state(self, words: int) -> int:
        self.state_words += words
        return self.state_words - words


def fold_sums(steps: list[Step]) -> list[Step]:
    """Where a product is only made to be added to something that is there before, it begins with that."""
    made = {buffer: (i, step) for i, step in enumerate(steps) for buffer in step.writes}
    reads = Counter(buffer for step in steps for buffer in step.reads)
    kept = []
    for step in steps:
        for a, b in _terms(step):
            i, product_ = made.get(b.buffer, (-1, step))
            before = made.get(a.buffer, (-1, step))[0] < i
            if before and reads[b.buffer] == 1 and _can_begin(product_, b):
                out = cast(Value, step.words[4])
                product_.begin_with(a, out)
                made[out.buffer] = (i, product_)
                break
        else:
            kept.append(step)
    return kept


def _terms(step: Step) -> list[tuple[Value, Value]]:
    """Both orders of what a sum adds; nothing for other steps."""
    if step.kernel is not elementwise.combine or step.words[0] != elementwise.ADD:
        return []
    a, b = cast(Value, step.words[2]), cast(Value, step.words[3])
    return [(a, b), (b, a)]


def _can_begin(product_: Step, result: Value) -> bool:
    """Whether the step is a product whose whole result is that value, without a bias."""
    if not product_.base or not isinstance(product_.words[product_.base], int):
        return False
    out = cast(Value, product_.words[product_.base - 2])
    return out.buffer is result.buffer and out.width == result.width
