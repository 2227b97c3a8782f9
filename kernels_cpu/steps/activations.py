"""Steps that make activations ready for integer products."""

from __future__ import annotations

from edgeq.kernels_cpu.jit import step
from edgeq.kernels_cpu.memory import word
from edgeq.kernels_cpu.products.arrange import arrange_row
from edgeq.kernels_cpu.quantized_activations import quantize_row

SIGNED, HALVES, WITH_S = 1, 2, 4
FLAGS = {"Q8_K": SIGNED, "Q8_0": HALVES, "Q8_1": HALVES + WITH_S, "blocked": 0}  # by a format's activations


@step
def quantize(first, last, at, scratch, isa):
    """Rows to int8, as ``quantized_activations`` does it.

    Words: x, its row bytes, columns, codes, scales, words (addresses; their rows follow one another), columns of a
    block, of a sum (or 0), flags.
    """
    columns, block, sub, flags = word(at, 2), word(at, 6), word(at, 7), word(at, 8)
    blocks = columns // block
    words = columns // (2 * sub) if sub else blocks
    for t in range(first, last):
        x, codes = word(at, 0) + t * word(at, 1), word(at, 3) + t * columns
        scales, words_at = word(at, 4) + 4 * t * blocks, word(at, 5) + 4 * t * words
        signed, halves, with_s = flags & SIGNED != 0, flags & HALVES != 0, flags & WITH_S != 0
        quantize_row(isa, x, codes, scales, words_at, blocks, block, sub, signed, halves, with_s)


@step
def arrange(first, last, at, scratch, isa):
    """Quantized rows as tiles take them. Words: codes, scales, words (addresses), blocks, columns of a block, words of
    a block, bytes of a code, and where codes, scales and words go.
    """
    for t in range(first, last):
        own, to = (word(at, 0), word(at, 1), word(at, 2)), (word(at, 7), word(at, 8), word(at, 9))
        arrange_row(word(at, 6), t, word(at, 3), word(at, 4), word(at, 5), *own, *to)
