"""The steps of products, plain ones and those of experts, with what their activations need."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.engine.packed import FloatMatrix
from edgeq.engine.steps import Buffer, Place, Step, Value, Word, like
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import Packed
from edgeq.kernels_cpu.products.panels import SEGMENT
from edgeq.kernels_cpu.products.tiles import operand_parts, unpacked_bytes
from edgeq.kernels_cpu.steps import activations, float_product, product


@dataclass(frozen=True)
class Routes:
    """Which rows of activations belong to which expert: the table of ``steps.experts``."""

    table: Buffer
    experts: int
    many: bool  # several rows may belong to an expert


class ProductSteps:
    """Writes products down. Activations are quantized once for all weights that want them alike."""

    def __init__(self, steps: list[Step], isa: Isa) -> None:
        self._steps, self._isa = steps, isa
        self._quantized: dict[tuple[object, ...], list[Buffer]] = {}
        self._arranged: dict[tuple[Buffer, int], list[Buffer]] = {}

    def add(self, x: Value, operand: Packed | FloatMatrix, base: Word, routes: Routes | None = None) -> Value:
        """x times a matrix, added to a bias (0 is none); with ``routes``, to the experts stacked in the matrix."""
        many = x.rows > 1 if routes is None else routes.many
        if isinstance(operand, Packed):
            return self._packed(x, operand, base, routes, many)
        return self._float(x, operand, base, routes, many)

    def _packed(self, x: Value, packed: Packed, base: Word, routes: Routes | None, many: bool) -> Value:
        layout, experts = packed.layout, routes.experts if routes else 1
        panels, blocks, block_bytes = packed.data.shape
        codes, scales, sums = self._quantize(x, packed)
        n_words = sums.row_bytes // 4 // blocks
        if many:
            codes, scales, sums = self._arrange([codes, scales, sums], packed, n_words, x.limit)
        out = like(x, packed.n)
        words: list[Word] = [packed.data, blocks, block_bytes, layout.rows, codes, scales, sums]
        words += [layout.format.block, n_words, out, out.row_bytes, base, 0]
        words += [routes.table, experts, panels // experts] if routes else [Place.STATE]
        step = Step(
            _kernel(product, routes, many), layout, words, [codes, scales, sums], [out.buffer], base=11
        )
        step.items, step.work = panels, layout.rows * packed.columns * (x.rows if many else 1)
        if many:
            segment = max(1, SEGMENT // layout.format.block)
            step.scratch = 64 + min(segment, blocks) * unpacked_bytes(layout)
        elif routes:
            step.items = panels // experts * x.rows
        return self._added(step, routes, out)

    def _float(self, x: Value, matrix: FloatMatrix, base: Word, routes: Routes | None, many: bool) -> Value:
        experts = routes.experts if routes else 1
        n = len(matrix.rows) // experts
        out = like(x, n)
        words: list[Word] = [matrix.rows, matrix.columns, n, x, x.row_bytes, out, out.row_bytes, base, 0]
        words += [routes.table, experts] if routes else [Place.STATE]
        kind = float_product.FloatWeights(matrix.type_name, self._isa)
        step = Step(_kernel(float_product, routes, many), kind, words, [x.buffer], [out.buffer], base=7)
        step.items, step.work = n, 2 * matrix.columns  # worth as much time as twice as many integers
        if many:
            step.items = experts * -(-n // float_product.GROUP)
            step.work *= x.rows * float_product.GROUP
            step.scratch = float_product.SCRATCH
        elif routes:
            step.items, step.work = x.rows, step.work * n
        return self._added(step, routes, out)

    def _added(self, step: Step, routes: Routes | None, out: Value) -> Value:
        if routes:
            step.reads = [*step.reads, routes.table]
            step.chunks = 2 * routes.experts
            step.work = max(1, step.work // routes.experts) if routes.many else step.work
        self._steps.append(step)
        return out

    def _quantize(self, x: Value, packed: Packed) -> list[Buffer]:
        """Codes, scales and sums of x as the weights want them."""
        form = packed.layout.format
        key = (x.buffer, x.offset, x.width, form.activation, form.block, form.sub)
        if key not in self._quantized:
            blocks, sub = x.width // form.block, form.sub or 0
            n_words = x.width // (2 * sub) if sub else blocks
            made = [Buffer(x.rows, row_bytes) for row_bytes in (x.width, 4 * blocks, 4 * n_words)]
            words: list[Word] = [x, x.row_bytes, x.width, *made, form.block, sub]
            words.append(activations.FLAGS[form.activation])
            step = Step(activations.quantize, self._isa, words, [x.buffer], made, rows=x.rows, limit=x.limit)
            self._steps.append(step)
            self._quantized[key] = made
        return self._quantized[key]

    def _arrange(self, x: list[Buffer], packed: Packed, n_words: int, limit: Word) -> list[Buffer]:
        """Codes, scales and sums of many rows as tiles take them."""
        size = operand_parts(packed.layout)
        key = (x[0], size)
        if key not in self._arranged:
            made = [Buffer(part.rows, part.row_bytes * (size if part is x[0] else 1)) for part in x]
            block = packed.layout.format.block
            words: list[Word] = [*x, x[0].row_bytes // block, block, n_words, size, *made]
            step = Step(activations.arrange, self._isa, words, x, made, rows=x[0].rows, limit=limit)
            self._steps.append(step)
            self._arranged[key] = made
        return self._arranged[key]


def _kernel(module: object, routes: Routes | None, many: bool) -> object:
    what = "expert" if routes else "product"
    return getattr(module, f"{what}_of_rows" if many else f"{what}_of_row")
