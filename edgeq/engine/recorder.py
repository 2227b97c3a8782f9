"""``edgeq.families.ops.Ops`` that computes nothing and writes down the steps that would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from edgeq.engine.packed import StepWeights
from edgeq.engine.product_steps import ProductSteps, Routes
from edgeq.engine.steps import Buffer, NotRecordableError, Place, Step, Value, Word, constant, floats, like
from edgeq.families.ops import Activation, Norm, Pooling
from edgeq.families.rope import Rope
from edgeq.kernels_cpu.attention import ROWS as QUERIES
from edgeq.kernels_cpu.cached import Cached
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products.tiles import ROWS as TILE_ROWS
from edgeq.kernels_cpu.steps import STATE_FREE, attention, elementwise, experts, norm, rope, rows

TOKENS, POSITIONS = Value(Buffer(0, 0), 0), Value(Buffer(0, 0), 0)  # what ``embed`` looks up
_ACTIVATIONS = {
    "silu": elementwise.SILU,
    "gelu": elementwise.GELU,
    "gelu_tanh": elementwise.GELU_TANH,
    "relu": elementwise.RELU,
    "tanh": elementwise.TANH,
}


@dataclass(frozen=True)
class Input:
    """Rows of a table, by token or by position, to be written before a run."""

    name: str
    ids: Value
    value: Value


class Recorder:
    """The forward pass of up to ``rows`` tokens, as steps."""

    def __init__(self, weights: StepWeights, rows: int, last_only: bool, isa: Isa, cached: Cached) -> None:
        self.weights, self.n_rows, self.last_only = weights, rows, last_only
        self.isa, self.cached = isa, cached
        self.steps: list[Step] = []
        self.inputs: list[Input] = []
        self.state_words = STATE_FREE
        self.ropes: dict[Rope, int] = {}  # the word of the state with the address of its frequencies
        self.layers: dict[int, int] = {}  # that of a layer's keys, which its values follow
        self._angles: dict[Rope, Value] = {}
        self._used: dict[Buffer, int] = {}  # experts of a token, by the buffer of what ``route`` gave
        self._products = ProductSteps(self.steps, isa)

    # --- what stands at the beginning -----------------------------------------------------------------------------
    def tokens(self) -> Value:
        return TOKENS

    def positions(self) -> Value:
        return POSITIONS

    def token_types(self) -> Value:
        raise NotRecordableError("encoders are not recorded")

    def first_row(self, stem: str) -> Value:
        raise NotRecordableError("encoders are not recorded")

    def pool(self, x: Value, pooling: Pooling) -> Value:
        raise NotRecordableError("encoders are not recorded")

    def unit(self, x: Value) -> Value:
        raise NotRecordableError("encoders are not recorded")

    def embed(self, stem: str, ids: Value) -> Value:
        limit = Place.STATE if self.n_rows > 1 else 0
        value = floats(self.n_rows, self.weights.columns(stem + ".weight"), 1, limit)
        self.inputs.append(Input(stem + ".weight", ids, value))
        return value

    # --- views ----------------------------------------------------------------------------------------------------
    def split(self, x: Value, widths: Sequence[int]) -> Sequence[Value]:
        at = [sum(widths[:i]) for i in range(len(widths))]
        return [
            replace(x, width=w, offset=x.offset + 4 * a, heads=1) for w, a in zip(widths, at, strict=True)
        ]

    def heads(self, x: Value, n_heads: int) -> Value:
        return replace(x, heads=n_heads)

    # --- rows -----------------------------------------------------------------------------------------------------
    def norm(self, x: Value, stem: str, kind: Norm, eps: float) -> Value:
        out = like(x, x.width)
        bias = self._vector(stem + ".bias") if self.weights.has(stem + ".bias") else 0
        words: list[Word] = [x, out, x.row_bytes, out.row_bytes, x.heads, x.width // x.heads]
        words += [self._vector(stem + ".weight"), bias, int(kind == "layer"), float(eps)]
        return self._row_step(norm.normalise, words, [x], out)

    def rope(self, x: Value, rope_: Rope) -> Value:
        if rope_ not in self._angles:
            self._angles[rope_] = self._made_angles(x, rope_)
        angles = self._angles[rope_]
        out = like(x, x.width)
        words: list[Word] = [x, out, angles, x.row_bytes, out.row_bytes, angles.row_bytes]
        words += [x.heads, x.width // x.heads, rope_.dim // 2]
        return self._row_step(rope.rotate, words, [x, angles], out)

    def _made_angles(self, x: Value, rope_: Rope) -> Value:
        self.ropes[rope_] = word = self._state(1)
        out = floats(x.rows, rope_.dim, 1, x.limit)
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

    def settled(self, x: Value) -> Value:
        return self.wanted(x)

    def _transform(self, x: Value, which: int, factor: float) -> Value:
        out = like(x, x.width)
        words: list[Word] = [which, x.width, x, out, x.row_bytes, out.row_bytes, float(factor)]
        return self._row_step(elementwise.transform, words, [x], out)

    def _combine(self, a: Value, b: Value, which: int) -> Value:
        out = like(a, a.width)
        words: list[Word] = [which, a.width, a, b, out, a.row_bytes, b.row_bytes, out.row_bytes]
        return self._row_step(elementwise.combine, words, [a, b], out)

    def _row_step(self, kernel: object, words: list[Word], reads: Sequence[Value], out: Value) -> Value:
        buffers = [value.buffer for value in reads]
        self.steps.append(
            Step(kernel, self.isa, words, buffers, [out.buffer], rows=out.rows, limit=out.limit)
        )
        return out

    # --- products -------------------------------------------------------------------------------------------------
    def linear(self, x: Value, stem: str) -> Value:
        bias = self._vector(stem + ".bias") if self.weights.has(stem + ".bias") else 0
        return self._products.add(x, self.weights.operand(stem + ".weight"), bias)

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
            raise NotRecordableError(
                "attention is recorded of decoders, with heads of a multiple of 16 values"
            )
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
                limit=k.limit,
                scratch=scratch,
            )
        )
        out = floats(q.rows, q.width, 1, q.limit)
        tiles = -(-q.rows * group // QUERIES)
        words = [Place.STATE, word, q, out, q.row_bytes, out.row_bytes, k.heads, group, width, tiles]
        words += [1, window, float(scale), float(cap)]
        work = QUERIES * width * 2 * max(256, q.rows)
        step = Step(attention.attend, self.cached, words, [q.buffer, cache], [out.buffer])
        step.items, step.work = k.heads * tiles, work
        self.steps.append(step)
        return out

    # --- experts --------------------------------------------------------------------------------------------------
    def route(self, scores: Value, used: int, normalised: bool) -> Value:
        out = like(scores, scores.width)
        words: list[Word] = [
            scores,
            out,
            scores.row_bytes,
            out.row_bytes,
            scores.width,
            used,
            int(normalised),
        ]
        self._row_step(experts.route, words, [scores], out)
        self.steps[-1].scratch = 4 * scores.width
        self._used[out.buffer] = used
        return out

    def experts(self, x: Value, blk: str, weights: Value, n_experts: int, kind: Activation) -> Value:
        used, many = self._used[weights.buffer], x.rows > 1
        multiple = TILE_ROWS if many else 1
        n_rows = x.rows * used + (multiple - 1) * min(n_experts, x.rows * used)
        n_rows = -(-n_rows // multiple) * multiple
        table = Buffer(1, 8 * (n_experts + 1 + 2 * n_rows + x.rows * used))
        words: list[Word] = [
            Place.STATE,
            weights,
            weights.row_bytes,
            table,
            n_experts,
            used,
            n_rows,
            multiple,
        ]
        self.steps.append(Step(experts.sort, self.isa, words, [weights.buffer], [table], items=1))
        limit = Value(table, 0, 8 * n_experts) if many else 0
        own = floats(n_rows, x.width, 1, limit)
        words = [x, own, x.row_bytes, own.row_bytes, x.width, table, n_experts]
        self._row_step(experts.gather, words, [x, Value(table, 0)], own)
        routes = Routes(table, n_experts, many)
        gate, up = (
            self._products.add(own, self.weights.operand(f"{blk}ffn_{name}_exps.weight"), 0, routes)
            for name in ("gate", "up")
        )
        h = self.mul(self.activation(gate, kind), up)
        y = self._products.add(h, self.weights.operand(f"{blk}ffn_down_exps.weight"), 0, routes)
        out = like(x, x.width)
        words = [y, out, weights, y.row_bytes, out.row_bytes, weights.row_bytes]
        words += [x.width, table, n_experts, used, n_rows]
        return self._row_step(experts.combine, words, [y, weights, Value(table, 0)], out)

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
