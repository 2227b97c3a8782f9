"""Plain memory for kernels that are handed addresses: words, floats, counters that threads share."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgeq.kernels_cpu.vectors import call

_I64, _I32, _F32 = ir.IntType(64), ir.IntType(32), ir.FloatType()


def _at(builder: Any, address: Any, index: Any, size: int, kind: ir.Type) -> Any:
    moved = builder.add(address, builder.mul(index, ir.Constant(_I64, size)))
    return builder.inttoptr(moved, kind.as_pointer())


@intrinsic
def word(_typing, at, i):
    """The int64 number i of those at an address."""

    def codegen(context, builder, sig, args):
        return builder.load(_at(builder, *args, 8, _I64), align=8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def set_word(_typing, at, i, value):
    """Write int64 number i."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _at(builder, args[0], args[1], 8, _I64), align=8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@intrinsic
def real(_typing, at, i):
    """The float32 in the first half of word i (native byte order)."""

    def codegen(context, builder, sig, args):
        return builder.load(_at(builder, *args, 8, _F32), align=4)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def get(_typing, at, i):
    """The float32 number i of those at an address."""

    def codegen(context, builder, sig, args):
        return builder.load(_at(builder, *args, 4, _F32), align=4)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def put(_typing, at, i, value):
    """Write float32 number i."""

    def codegen(context, builder, sig, args):
        x = context.cast(builder, args[2], value, types.float32)
        builder.store(x, _at(builder, args[0], args[1], 4, _F32), align=4)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, value), codegen


@intrinsic
def add_atomically(_typing, at, n):
    """Add n to the int64 at an address; what it was before. What other threads wrote first is seen after."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def read_atomically(_typing, at):
    """The int64 at an address; what its writer wrote before is seen after."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


_PAUSES = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}
_PAUSES["arm64"] = _PAUSES["aarch64"]


@intrinsic
def pause(_typing):
    """Tell the CPU that this thread only waits, where the compiler's target has an instruction for it."""

    def codegen(context, builder, sig, args):
        name, operands = _PAUSES.get(str(builder.module.triple).partition("-")[0], ("", ()))
        if name:
            call(builder, name, ir.VoidType(), *(ir.Constant(_I32, operand) for operand in operands))
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def call_nothing(_typing, function):
    """Call the C function without arguments at an address, if it is not 0."""

    def codegen(context, builder, sig, args):
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(_I64, 0))):
            kind = ir.FunctionType(_I32, [])
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.none(types.int64), codegen
