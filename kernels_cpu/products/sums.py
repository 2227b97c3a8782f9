"""Five ways to sum code · activation, by what the instruction set has; ``tiles`` is written in their names.

All are exact for activations from −127 to 127. ``PairSums`` adds up int16 pairs as long as they cannot overflow and
scales them with the instruction that widens them: one multiplication per 4 columns instead of two, since codes are
small. Codes of 8 bits are cut into two digits below 16; in a product of many rows, they are better multiplied whole:
by ``SignSums``, as ggml does it, or widened beforehand, with the activations, by ``WordSums``. ``QuadSums`` is one
dot product instruction per 4 columns. ``MatrixSums`` multiplies two rows of weights with two of activations at once.
"""

from __future__ import annotations

from edgeq.kernels_cpu.integer_dot import (
    dot4,
    dot4_takes_signed,
    has_dot4,
    has_matrix_dot,
    has_signs,
    matrix_dot,
    multiply_pairs,
    pair_sums,
    with_signs,
)
from edgeq.kernels_cpu.registers import I8, I16, I32, Emitter, Register

_LARGEST = 32767


class PairSums:
    """u8 · s8 in int16 (vpmaddubsw, vpmaddwd)."""

    signed_codes = False
    element, scale_element = I8, I16
    parts = 1  # registers of operands for 4 columns
    step = 2  # groups in each round of the innermost loop

    def __init__(self, e: Emitter, bits: int) -> None:
        self.e = e
        self.digits = (1,) if bits <= 6 else (1, 16)  # what each digit of a code counts
        top = (1 << min(bits, 4 if len(self.digits) > 1 else bits)) - 1
        self.groups = _LARGEST // (top * 128 * 2)  # of 4 columns, before the sum could leave int16

    def operand(self, code: Register, digit: int, part: int) -> Register:
        """One digit of bytes, uint8."""
        if len(self.digits) == 1:
            return code
        return code & 15 if digit == 0 else code >> 4

    def added(self, partial: Register | None, code: Register, x: Register) -> Register:
        """Four more columns."""
        sums = pair_sums(self.e, code, x)
        return sums if partial is None else partial + sums

    def scaled(self, total: Register, partial: Register, scale: Register | None, digit: int) -> Register:
        """int32 total + scale · partial; the scale is one that ``scale`` made."""
        if scale is None:
            scale = self.e.constant(I16, 2 * self.e.lanes, self.digits[digit])
        return total + multiply_pairs(self.e, partial, scale)

    def scale(self, pairs: Register, which: int, digit: int) -> Register:
        """One of each lane's pair of int16 scales, times what the digit counts, in both int16 of the lane."""
        lanes = [2 * (i // 2) + which for i in range(2 * self.e.lanes)]
        spread = pairs.shuffled(lanes)
        return spread if self.digits[digit] == 1 else spread << 4


class QuadSums:
    """u8 · s8 in int32 (vpdpbusd, usdot), or s8 · s8 (sdot)."""

    groups = 1 << 16
    digits: tuple[int, ...] = (1,)
    element, scale_element = I8, I32
    parts = 1
    step = 1

    def __init__(self, e: Emitter, bits: int) -> None:
        self.e = e
        self.signed_codes = bits > 7 and dot4_takes_signed(e.features)  # 128 is taken off them

    def operand(self, code: Register, digit: int, part: int) -> Register:
        """The code itself; where it must be signed, less 128."""
        return code ^ -128 if self.signed_codes else code

    def added(self, partial: Register | None, code: Register, x: Register) -> Register:
        return dot4(self.e, self.e.zero(I32) if partial is None else partial, code, x)

    def scaled(self, total: Register, partial: Register, scale: Register | None, digit: int) -> Register:
        return total + (partial if scale is None else partial * scale)

    def scale(self, pairs: Register, which: int, digit: int) -> Register:
        """One of each lane's pair of int16 scales, as int32."""
        lanes = pairs.bits_as(I32, self.e.lanes)
        return (lanes if which else lanes << 16).signed_shift(16)


class WordSums(QuadSums):
    """s16 · s16 in int32 (vpmaddwd), for codes of 8 bits: columns 0 and 2 of four, then 1 and 3."""

    element = I16
    parts = 2
    step = 2

    def __init__(self, e: Emitter, bits: int) -> None:
        self.e = e
        self.signed_codes = True

    def operand(self, code: Register, digit: int, part: int) -> Register:
        """Two columns of each lane, code less 128."""
        words = (code ^ -128).bits_as(I16, 2 * self.e.lanes)
        return (words if part else words << 8).signed_shift(8)

    def added(self, partial: Register | None, code: Register, x: Register) -> Register:
        sums = multiply_pairs(self.e, code, x)
        return sums if partial is None else partial + sums


class SignSums(QuadSums):
    """|code| · activation with the code's sign, u8 · s8 (vpsignb, vpmaddubsw, vpmaddwd), for codes of 8 bits.

    A pair is at most 2 · 128 · 127, which int16 holds, and no more: each is widened at once. Those are as many
    multiplications as ``WordSums`` has, with half of the loads. Source: ``mul_sum_i8_pairs_float`` in
    ``ggml/src/ggml-cpu/arch/x86/quants.c``.
    """

    step = 8  # a loop of fewer has as many instructions of its own as one of them

    def __init__(self, e: Emitter, bits: int) -> None:
        self.e = e
        self.signed_codes = True

    def added(self, partial: Register | None, code: Register, x: Register) -> Register:
        negative = code.signed_shift(7)
        size = (code ^ negative) - negative
        ones = self.e.constant(I16, 2 * self.e.lanes, 1)
        sums = multiply_pairs(self.e, pair_sums(self.e, size, with_signs(self.e, x, code)), ones)
        return self.e.held(sums if partial is None else partial + sums)


class MatrixSums(QuadSums):
    """u8 · s8, two rows of weights and two of activations, 8 columns of each in a register (usmmla).

    Where the others have the operands of 4 columns and of the next 4, here stand the first half of a register's
    rows and the second, with all 8 columns.
    """

    step = 2

    def __init__(self, e: Emitter, bits: int) -> None:
        self.e = e
        self.signed_codes = False

    def weights(self, first: Register, second: Register, half: int) -> Register:
        """Codes of 4 columns and of the next 4, every row's side by side; one half of the rows."""
        lanes = self.e.lanes
        rows = range(half * lanes // 2, (half + 1) * lanes // 2)
        a, b = (register.bits_as(I32, lanes) for register in (first, second))
        return a.shuffled([i for row in rows for i in (row, lanes + row)], b).bits_as(I8, 4 * lanes)

    def activations(self, first: Register, second: Register) -> Register:
        """8 columns of a row and of the next (int64), again and again."""
        return first.shuffled([0, 1] * (self.e.lanes // 4), second).bits_as(I8, 4 * self.e.lanes)

    def added(self, partial: Register | None, code: Register, x: Register) -> Register:
        return matrix_dot(self.e, self.e.zero(I32) if partial is None else partial, code, x)

    def by_row(self, low: Register, high: Register) -> tuple[Register, Register]:
        """Sums of both halves of the rows, as those of the first row of activations and of the second."""
        lanes = range(2 * self.e.lanes)
        return low.shuffled(lanes[::2], high), low.shuffled(lanes[1::2], high)


Sums = PairSums | QuadSums


def sums_for(e: Emitter, bits: int, rows: int) -> Sums:
    """The way for this instruction set, codes of so many bits, and so many rows of activations in a tile."""
    if rows > 1 and has_matrix_dot(e.features):
        return MatrixSums(e, bits)
    if has_dot4(e.features):
        return QuadSums(e, bits)
    if bits <= 6 or rows == 1:
        return PairSums(e, bits)
    return SignSums(e, bits) if has_signs(e.features) else WordSums(e, bits)
