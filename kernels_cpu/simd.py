"""Functions on vectors (see ``vectors``) for kernels: the same names on every instruction set.

All are plain LLVM vector code, which compiles for any CPU; where an instruction is worth asking for (half
precision), the isa says if it is there. ``isa`` in a kernel is the value it was handed; ``resized(isa, 8)``
and ``widened(isa, 2)`` give others. Addresses are int64 (``address``): keep the array alive while they are
used, that is, pass the array on and take its address inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.vectors import Lanes, Vector, call, splatted, suffix

_I32 = ir.IntType(32)
_ROUND = np.float32(12582912.0)  # 1.5 · 2^23


# --- shapes -----------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def resized(_typing, isa, lanes):
    """The same instruction set with vectors of that many float32 lanes (a literal)."""
    if not isinstance(isa, Lanes) or not isinstance(lanes, types.IntegerLiteral):
        return None
    wanted = isa.resized(lanes.literal_value)
    return wanted(isa, lanes), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic(prefer_literal=True)
def widened(_typing, isa, times):
    """The same instruction set with vectors of ``times`` registers (a literal)."""
    if not isinstance(isa, Lanes) or not isinstance(times, types.IntegerLiteral):
        return None
    wanted = isa.resized(isa.lanes * times.literal_value)
    return wanted(isa, times), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def lanes_of(_typing, isa):
    """float32 lanes of a vector, int64."""
    if not isinstance(isa, Lanes):
        return None
    return types.int64(isa), lambda context, builder, sig, args: ir.Constant(ir.IntType(64), isa.lanes)


# --- memory -----------------------------------------------------------------------------------------------


@intrinsic
def address(_typing, array):
    """Address of an array's first element, int64."""
    if not isinstance(array, types.Array):
        return None

    def codegen(context, builder, sig, args):
        from numba.np.arrayobj import make_array

        data = make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), codegen


def _pointer(builder: Any, at: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(at, kind.as_pointer())


def _loader(element: types.Type, doc: str) -> Any:
    def load(_typing, isa, at):
        if not isinstance(isa, Lanes) or not isinstance(at, types.Integer):
            return None
        vector = isa.vector(element)

        def codegen(context, builder, sig, args):
            return builder.load(_pointer(builder, args[1], vector.llvm), align=1)

        return vector(isa, types.int64), codegen

    load.__doc__ = doc
    return intrinsic(load)


load = _loader(types.float32, "One vector of float32 from an address, aligned or not.")
load_int32 = _loader(types.int32, "One vector of int32 from an address.")
load_int16 = _loader(types.int16, "As many int16 as the isa has float32 lanes.")
load_int8 = _loader(types.int8, "As many int8 as the isa has float32 lanes.")
load_uint8 = _loader(types.uint8, "As many uint8 as the isa has float32 lanes.")


@intrinsic
def store(_typing, at, vector):
    """Write a vector to an address, aligned or not."""
    if not isinstance(vector, Vector):
        return None

    def codegen(context, builder, sig, args):
        builder.store(args[1], _pointer(builder, args[0], vector.llvm), align=1)
        return context.get_dummy_value()

    return types.none(types.int64, vector), codegen


def _storer(bits: int, doc: str) -> Any:
    def store_integer(_typing, at, value):
        if not isinstance(at, types.Integer) or not isinstance(value, types.Integer):
            return None
        kind = ir.IntType(bits)

        def codegen(context, builder, sig, args):
            wide = context.cast(builder, args[1], value, types.int64)
            builder.store(builder.trunc(wide, kind), _pointer(builder, args[0], kind), align=1)
            return context.get_dummy_value()

        return types.none(types.int64, value), codegen

    store_integer.__doc__ = doc
    return intrinsic(store_integer)


store_int16 = _storer(16, "Write the low 16 bits of an integer to an address.")
store_int32 = _storer(32, "Write the low 32 bits of an integer to an address.")


@intrinsic
def load_word(_typing, at):
    """The int32 at an address, aligned or not, as int64."""

    def codegen(context, builder, sig, args):
        return builder.sext(builder.load(_pointer(builder, args[0], _I32), align=1), ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def prefetch(_typing, at):
    """Ask for the cache line at an address, which need not be valid."""

    def codegen(context, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(_I32, value) for value in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@intrinsic
def transpose(_typing, isa, rows, offset, out, stride):
    """As many rows as lanes, each read at ``rows[i] + offset``; column i is written to ``out + i · stride``.

    ``rows`` is the address of int64 addresses; offset and stride are in bytes.
    """
    if not isinstance(isa, Lanes):
        return None
    vector = isa.vector(types.float32).llvm
    n = isa.lanes

    def codegen(context, builder, sig, args):
        _, rows_at, offset_, out_, stride_ = args
        i64 = ir.IntType(64)
        pointers = _pointer(builder, rows_at, i64)
        rows_ = []
        for i in range(n):
            start = builder.load(builder.gep(pointers, [ir.Constant(_I32, i)]))
            rows_.append(builder.load(_pointer(builder, builder.add(start, offset_), vector), align=4))
        for i, column in enumerate(_transposed(builder, rows_)):
            at = builder.add(out_, builder.mul(stride_, ir.Constant(i64, i)))
            builder.store(column, _pointer(builder, at, vector), align=4)
        return context.get_dummy_value()

    return types.none(isa, *[types.int64] * 4), codegen


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """log2(n) rounds; in each, rows i and i + step trade the lanes whose bit ``step`` differs."""
    n, step = len(rows), 1
    lanes = ir.VectorType(_I32, n)
    while step < n:
        low = [c if not c & step else n + c - step for c in range(n)]
        high = [c + step if not c & step else n + c for c in range(n)]
        for i in range(n):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i] = builder.shuffle_vector(a, b, ir.Constant(lanes, low))
                rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(lanes, high))
        step *= 2
    return rows


# --- lanes ------------------------------------------------------------------------------------------------


@intrinsic
def splat(_typing, isa, scalar):
    """A float32, or an integer as int32, in every lane."""
    if not isinstance(isa, Lanes) or not isinstance(scalar, types.Number):
        return None
    element = types.float32 if isinstance(scalar, types.Float) else types.int32

    def codegen(context, builder, sig, args):
        return splatted(builder, context.cast(builder, args[1], scalar, element), isa.lanes)

    return isa.vector(element)(isa, scalar), codegen


@intrinsic
def select(_typing, mask, a, b):
    """Lane by lane, a where the mask holds, else b; a number is broadcast."""
    vector = a if isinstance(a, Vector) else b
    if not isinstance(mask, Vector) or not isinstance(vector, Vector):
        return None
    return signature(vector, mask, vector, vector), lambda context, builder, sig, args: builder.select(*args)


def _picker(symbol: str, doc: str) -> Any:
    def pick(_typing, a, b):
        vector = a if isinstance(a, Vector) else b
        if not isinstance(vector, Vector):
            return None

        def codegen(context, builder, sig, args):
            if vector.is_float:
                return builder.select(builder.fcmp_ordered(symbol, *args), *args)
            compare = builder.icmp_signed if vector.element.signed else builder.icmp_unsigned
            return builder.select(compare(symbol, *args), *args)

        return signature(vector, vector, vector), codegen

    pick.__doc__ = doc
    return intrinsic(pick)


minimum = _picker(
    "<", "a < b ? a : b in each lane, so b where one is NaN (x86's minps); broadcasts a number."
)
maximum = _picker(">", "a > b ? a : b in each lane, so b where one is NaN; broadcasts a number.")


@intrinsic
def fma(_typing, a, b, c):
    """a · b + c, rounded once. Never in an encoder: ggml's bytes come without contraction."""
    if not (isinstance(a, Vector) and a.is_float):
        return None

    def codegen(context, builder, sig, args):
        return call(builder, f"llvm.fma.{suffix(a)}", a.llvm, *args)

    return signature(a, a, a, a), codegen


@intrinsic
def sqrt(_typing, a):
    """Square root of each lane, correctly rounded."""
    if not (isinstance(a, Vector) and a.is_float):
        return None
    return a(a), lambda context, builder, sig, args: call(builder, f"llvm.sqrt.{suffix(a)}", a.llvm, *args)


@intrinsic
def lane_numbers(_typing, isa):
    """0, 1, 2.. as int32."""
    if not isinstance(isa, Lanes):
        return None
    vector = isa.vector(types.int32)
    return vector(isa), lambda context, builder, sig, args: ir.Constant(vector.llvm, list(range(isa.lanes)))


@intrinsic
def rint(_typing, a):
    """Each lane rounded to a whole number, ties to even."""
    if not (isinstance(a, Vector) and a.is_float):
        return None
    return a(a), lambda context, builder, sig, args: call(builder, f"llvm.rint.{suffix(a)}", a.llvm, *args)


@intrinsic
def lane(_typing, vector, i):
    """One lane as a scalar."""
    if not isinstance(vector, Vector) or not isinstance(i, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        return builder.extract_element(args[0], builder.trunc(args[1], _I32))

    return vector.element(vector, types.int64), codegen


# --- reductions -------------------------------------------------------------------------------------------


def _mask_reduction(name: str, doc: str) -> Any:
    def reduce(_typing, mask):
        if not isinstance(mask, Vector) or mask.element is not types.boolean:
            return None

        def codegen(context, builder, sig, args):
            return call(builder, f"llvm.vector.reduce.{name}.v{mask.lanes}i1", ir.IntType(1), *args)

        return types.boolean(mask), codegen

    reduce.__doc__ = doc
    return intrinsic(reduce)


any_of = _mask_reduction("or", "Does the mask hold in any lane?")
all_of = _mask_reduction("and", "Does the mask hold in every lane?")


@intrinsic
def mask_bits(_typing, mask):
    """Bit i is lane i of the mask; int64."""
    if not isinstance(mask, Vector) or mask.element is not types.boolean or mask.lanes > 64:
        return None

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return bits if mask.lanes == 64 else builder.zext(bits, ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def first_bit(_typing, bits):
    """Number of the lowest bit that is set in an int64; 64 where none is."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


def _halving(combine: Any) -> Any:
    """Codegen that folds the upper half onto the lower until one lane is left."""

    def codegen(context, builder, sig, args):
        value, lanes = args[0], sig.args[0].lanes
        while lanes > 1:
            lanes //= 2
            kind = ir.VectorType(_I32, lanes)
            low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes))))
            high = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes, 2 * lanes))))
            value = combine(builder, sig.args[0], low, high)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return codegen


def _reduction(combine: Any, doc: str) -> Any:
    def reduce(_typing, vector):
        if not isinstance(vector, Vector) or vector.element is types.boolean:
            return None
        return vector.element(vector), _halving(combine)

    reduce.__doc__ = doc
    return intrinsic(reduce)


def _add(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
    return builder.fadd(a, b) if vector.is_float else builder.add(a, b)


def _larger(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
    compare = builder.fcmp_ordered if vector.is_float else builder.icmp_signed
    return builder.select(compare(">", a, b), a, b)


def _smaller(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
    compare = builder.fcmp_ordered if vector.is_float else builder.icmp_signed
    return builder.select(compare("<", a, b), a, b)


sum_of = _reduction(_add, "Sum of the lanes, halves folded: not the order of a loop.")
max_of = _reduction(_larger, "Largest lane.")
min_of = _reduction(_smaller, "Smallest lane.")


# --- conversions ------------------------------------------------------------------------------------------


@intrinsic
def to_float(_typing, vector):
    """Integers to float32."""
    if not isinstance(vector, Vector) or vector.is_float:
        return None
    floats = vector.of(types.float32)

    def codegen(context, builder, sig, args):
        return (builder.sitofp if vector.element.signed else builder.uitofp)(args[0], floats.llvm)

    return floats(vector), codegen


def _converter(element: types.Type, doc: str) -> Any:
    """Integers wrap where narrower and extend by the source's sign where wider; floats truncate."""

    def convert(_typing, vector):
        if not isinstance(vector, Vector):
            return None
        result = vector.of(element)

        def codegen(context, builder, sig, args):
            if vector.is_float:
                return builder.fptosi(args[0], result.llvm)
            narrower = result.element.bitwidth < vector.element.bitwidth
            if result.llvm == vector.llvm:
                return args[0]
            if narrower:
                return builder.trunc(args[0], result.llvm)
            return (builder.sext if vector.element.signed else builder.zext)(args[0], result.llvm)

        return result(vector), codegen

    convert.__doc__ = doc
    return intrinsic(convert)


to_int32 = _converter(types.int32, "Integers, extended; floats, towards zero (they must fit).")
to_int16 = _converter(types.int16, "Integers, wrapped or extended.")
to_uint8 = _converter(types.uint8, "Integers, wrapped.")


def _bit_cast(element: types.Type, doc: str) -> Any:
    def cast(_typing, vector):
        if not isinstance(vector, Vector):
            return None
        result = vector.of(element)
        return result(vector), lambda context, builder, sig, args: builder.bitcast(args[0], result.llvm)

    cast.__doc__ = doc
    return intrinsic(cast)


as_int32 = _bit_cast(types.int32, "The bits of float32.")
as_float = _bit_cast(types.float32, "The bits of int32 as float32.")


@helper
def nearest(x):
    """float32 to int32, ties to even, as ggml's ``nearest_int``: wraps beyond 2^22."""
    return (as_int32(x + _ROUND) & 0x7FFFFF) - 0x400000
