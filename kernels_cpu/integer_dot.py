"""Integer products of neighbouring lanes: the same few names on every instruction set.

A name becomes a CPU's instruction only where the isa's features have it (LLVM aborts the process for one that
the target lacks), else plain LLVM code with the same result. Operands wider than a register are cut into
registers. ``pair_sums`` saturates on x86 and wraps elsewhere: callers keep out of that range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from llvmlite import ir
from llvmlite.binding import llvm_version_info

from edgeq.kernels_cpu.registers import I8, I16, I32, Emitter, Register
from edgeq.kernels_cpu.vectors import call

_LLVM_OF_BYTES = 22  # from here on, x86's dot products take vectors of bytes, before of int32
_DOT_FEATURES = frozenset({"avxvnni", "avx512vnni", "dotprod"})


class _Instruction(NamedTuple):
    """An LLVM intrinsic: the feature it needs, its name, and the bits of its vectors."""

    feature: str
    name: str
    bits: int


_PAIR_SUMS = (
    _Instruction("avx512bw", "llvm.x86.avx512.pmaddubs.w.512", 512),
    _Instruction("avx2", "llvm.x86.avx2.pmadd.ub.sw", 256),
)
_MULTIPLY_PAIRS = (
    _Instruction("avx512bw", "llvm.x86.avx512.pmaddw.d.512", 512),
    _Instruction("avx2", "llvm.x86.avx2.pmadd.wd", 256),
)
_DOTS = (
    _Instruction("avx512vnni", "llvm.x86.avx512.vpdpbusd.512", 512),
    _Instruction("avxvnni", "llvm.x86.avx512.vpdpbusd.256", 256),  # VEX or EVEX by the target's features
    _Instruction("i8mm", "llvm.aarch64.neon.usdot.v4i32.v16i8", 128),
    _Instruction("dotprod", "llvm.aarch64.neon.sdot.v4i32.v16i8", 128),
)
_MATRIX_DOTS = (_Instruction("i8mm", "llvm.aarch64.neon.usmmla.v4i32.v16i8", 128),)
_SIGNS = (_Instruction("avx2", "llvm.x86.avx2.psign.b", 256),)
_LOOKUPS = (
    _Instruction("avx2", "llvm.x86.avx2.pshuf.b", 256),
    _Instruction("neon", "llvm.aarch64.neon.tbl1.v16i8", 128),
)


def _found(e: Emitter, instructions: Sequence[_Instruction], bits: int) -> _Instruction | None:
    """The first instruction that the isa has for vectors of so many bits."""
    return next((i for i in instructions if i.feature in e.features and bits % i.bits == 0), None)


def _in_pieces(function: Callable[..., Register], pieces: int, *operands: Register) -> Register:
    """The results of equal pieces of the operands, put together."""
    if pieces == 1:
        return function(*operands)
    parts = []
    for p in range(pieces):
        counts = [operand.kind.count // pieces for operand in operands]
        cut = [o.shuffled(range(p * n, (p + 1) * n)) for o, n in zip(operands, counts, strict=True)]
        parts.append(function(*cut))
    while len(parts) > 1:
        width = 2 * parts[0].kind.count
        parts = [a.shuffled(range(width), b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _called(e: Emitter, instruction: _Instruction, result: ir.Type, *operands: Register) -> Register:
    """Apply an instruction, piece by piece; ``result`` is its element type."""
    pieces = operands[-1].kind.count * operands[-1].kind.element.width // instruction.bits
    kind = ir.VectorType(result, instruction.bits // result.width)

    def one(*parts: Register) -> Register:
        return Register(e.builder, call(e.builder, instruction.name, kind, *(part.value for part in parts)))

    return _in_pieces(one, pieces, *operands)


def _even_and_odd(register: Register) -> tuple[Register, Register]:
    n = register.kind.count
    return register.shuffled(range(0, n, 2)), register.shuffled(range(1, n, 2))


def pair_sums(e: Emitter, codes: Register, x: Register) -> Register:
    """u8 · s8, neighbours added: int16, half as many lanes (vpmaddubsw). The sums must fit int16."""
    instruction = _found(e, _PAIR_SUMS, codes.kind.count * 8)
    if instruction is not None:
        return _called(e, instruction, I16, codes, x)
    pairs = zip(_even_and_odd(codes), _even_and_odd(x), strict=True)
    even, odd = (a.extended(I16, signed=False) * b.extended(I16, signed=True) for a, b in pairs)
    return even + odd


def multiply_pairs(e: Emitter, a: Register, b: Register) -> Register:
    """s16 · s16, neighbours added: int32, half as many lanes (vpmaddwd)."""
    instruction = _found(e, _MULTIPLY_PAIRS, a.kind.count * 16)
    if instruction is not None:
        return _called(e, instruction, I32, a, b)
    pairs = zip(_even_and_odd(a), _even_and_odd(b), strict=True)
    even, odd = (p.extended(I32, signed=True) * q.extended(I32, signed=True) for p, q in pairs)
    return even + odd


def has_dot4(features: frozenset[str]) -> bool:
    """Is there an instruction for ``dot4``?"""
    return bool(features & _DOT_FEATURES)


def dot4_takes_signed(features: frozenset[str]) -> bool:
    """Does that instruction want signed bytes on both sides (sdot)?"""
    return "dotprod" in features and "i8mm" not in features


def dot4(e: Emitter, total: Register, codes: Register, x: Register) -> Register:
    """int32 total + the sums of four neighbouring u8 · s8 products (vpdpbusd, usdot), or s8 · s8 (sdot)."""
    instruction = _found(e, _DOTS, codes.kind.count * 8)
    if instruction is not None:
        if instruction.name.startswith("llvm.x86") and llvm_version_info[0] < _LLVM_OF_BYTES:
            codes, x = (register.bits_as(I32, total.kind.count) for register in (codes, x))
        return _called(e, instruction, I32, total, codes, x)
    signed = dot4_takes_signed(e.features)
    for lane in range(4):
        a, b = (register.shuffled(range(lane, register.kind.count, 4)) for register in (codes, x))
        total = total + a.extended(I32, signed) * b.extended(I32, signed=True)
    return total


def has_matrix_dot(features: frozenset[str]) -> bool:
    """Is there an instruction for ``matrix_dot``?"""
    return "i8mm" in features


def matrix_dot(e: Emitter, total: Register, codes: Register, x: Register) -> Register:
    """int32 total + u8 ``[2, 8]`` · s8 ``[2, 8]`` transposed, ``[2, 2]``, in each 128 bits (usmmla)."""
    instruction = _found(e, _MATRIX_DOTS, codes.kind.count * 8)
    if instruction is not None:
        return _called(e, instruction, I32, total, codes, x)
    lanes = range(total.kind.count)  # 4 · which + 2 · row of codes + row of x
    for k in range(8):
        a = codes.shuffled([lane // 2 * 8 + k for lane in lanes])
        b = x.shuffled([lane // 4 * 16 + lane % 2 * 8 + k for lane in lanes])
        total = total + a.extended(I32, signed=False) * b.extended(I32, signed=True)
    return total


def has_signs(features: frozenset[str]) -> bool:
    """Is there an instruction for ``with_signs``?"""
    return "avx2" in features


def with_signs(e: Emitter, x: Register, of: Register) -> Register:
    """Bytes of x, negative where those of the other are, 0 where they are 0 (vpsignb). Only where ``has_signs``."""
    instruction = _found(e, _SIGNS, x.kind.count * 8)
    assert instruction is not None
    return _called(e, instruction, I8, x, of)


def has_lookup(features: frozenset[str]) -> bool:
    """Is there an instruction for ``lookup``?"""
    return bool(features & {"avx2", "neon"})


def lookup(e: Emitter, table: Sequence[int], codes: Register) -> Register:
    """table[code] of each byte, codes below 16 (vpshufb, tbl). Only where ``has_lookup``."""
    instruction = _found(e, _LOOKUPS, codes.kind.count * 8)
    assert instruction is not None
    entries = e.constant(I8, codes.kind.count, [table[i % 16] for i in range(codes.kind.count)])
    return _called(e, instruction, I8, entries, codes)
