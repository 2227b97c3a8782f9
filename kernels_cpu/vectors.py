"""SIMD registers as Numba values: the types, and Python's operators on them.

A ``Vector(element, lanes)`` is an LLVM vector and lives in registers, more than one where it is wider than
the CPU's. Operators work lane by lane without contraction; a number on one side is broadcast to the element
of the other. Comparisons give masks, ``Vector(boolean, lanes)``. Named functions are in ``simd``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import signature
from numba.extending import (
    NativeValue,
    lower_builtin,
    lower_cast,
    models,
    register_model,
    type_callable,
    typeof_impl,
    unbox,
)

from edgeq.kernels_cpu.compiling import Purpose
from edgeq.kernels_cpu.isa import Isa, has_halves


class Vector(types.Type):
    """``lanes`` values of ``element`` (float32, integers, boolean for masks)."""

    def __init__(self, element: types.Type, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"Vector({element}, {lanes})")

    def can_convert_from(self, typingctx: Any, other: types.Type) -> Conversion | None:
        return Conversion.unsafe if isinstance(other, types.Number) else None

    def of(self, element: types.Type) -> Vector:
        """The vector type of as many lanes with another element."""
        return Vector(element, self.lanes)

    @property
    def is_float(self) -> bool:
        return isinstance(self.element, types.Float)

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(llvm_element(self.element), self.lanes)


class Lanes(types.Type):
    """The type of an ``Isa`` in a kernel: how many float32 lanes its vectors have, and its features."""

    def __init__(self, isa_name: str, lanes: int, features: frozenset[str]) -> None:
        self.isa_name = isa_name
        self.lanes = lanes
        self.features = features
        self.purpose = Purpose(instruction_set=isa_name)
        super().__init__(name=f"Lanes({isa_name}, {lanes}, {' '.join(sorted(features))})")

    @property
    def has_halves(self) -> bool:
        return has_halves(self.features)

    def vector(self, element: types.Type) -> Vector:
        return Vector(element, self.lanes)

    def resized(self, lanes: int) -> Lanes:
        return Lanes(self.isa_name, lanes, self.features)


def llvm_element(element: types.Type) -> ir.Type:
    if element is types.float32:
        return ir.FloatType()
    if element is types.boolean:
        return ir.IntType(1)
    return ir.IntType(cast(Any, element).bitwidth)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


register_model(Lanes)(models.OpaqueModel)


@functools.cache  # making a type takes microseconds, at every call of a kernel
def lanes_type(isa: Isa) -> Lanes:
    """The type that an ``Isa`` has in a kernel."""
    return Lanes(isa.name, isa.float_lanes, isa.features)


@typeof_impl.register(Isa)
def _typeof_isa(isa: Isa, _context: Any) -> Lanes:
    return lanes_type(isa)


@unbox(Lanes)
def _unbox_isa(_type: Lanes, _value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


def splatted(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """One value in every lane."""
    vector = ir.VectorType(scalar.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)


def filled(vector: ir.VectorType, value: float) -> ir.Constant:
    """A constant in every lane."""
    return ir.Constant(vector, [value] * vector.count)


@lower_cast(types.Number, Vector)
def _broadcast(context: Any, builder: Any, source: types.Type, target: Vector, value: Any) -> Any:
    return splatted(builder, context.cast(builder, value, source, target.element), target.lanes)


def _common(a: types.Type, b: types.Type) -> Vector | None:
    """The vector type both sides have, or can be broadcast to."""
    if isinstance(a, Vector) and (a == b or isinstance(b, types.Number)):
        return a
    return b if isinstance(b, Vector) and isinstance(a, types.Number) else None


def _binary(function: Callable[..., Any], floats: str | None, integers: str | None) -> None:
    """Define an operator by the builder's methods for floats and for integers and masks."""

    @type_callable(function)
    def type_operator(_context: Any) -> Callable[..., Any]:
        def typer(a: types.Type, b: types.Type) -> Any:
            common = _common(a, b)
            if common is None or (floats if common.is_float else integers) is None:
                return None
            return signature(common, common, common)

        return typer

    @lower_builtin(function, Vector, Vector)
    def lower_operator(_context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = floats if sig.return_type.is_float else integers
        return getattr(builder, str(name))(*args)


def _comparison(function: Callable[..., Any], symbol: str) -> None:
    @type_callable(function)
    def type_comparison(_context: Any) -> Callable[..., Any]:
        def typer(a: types.Type, b: types.Type) -> Any:
            common = _common(a, b)
            return None if common is None else signature(common.of(types.boolean), common, common)

        return typer

    @lower_builtin(function, Vector, Vector)
    def lower_comparison(_context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if sig.args[0].is_float:
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
        else:
            compare = builder.icmp_signed if sig.args[0].element.signed else builder.icmp_unsigned
        return compare(symbol, *args)


for _operator, _floats, _integers in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", None),
    (operator.and_, None, "and_"),
    (operator.or_, None, "or_"),
    (operator.xor, None, "xor"),
    (operator.lshift, None, "shl"),
):
    _binary(_operator, _floats, _integers)
    _inplace = getattr(operator, "i" + _operator.__name__.rstrip("_"))
    _binary(_inplace, _floats, _integers)
for _operator, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_operator, _symbol)


@type_callable(operator.rshift)
def _type_shift_right(_context: Any) -> Callable[..., Any]:
    def typer(a: types.Type, b: types.Type) -> Any:
        common = _common(a, b)
        return None if common is None or common.is_float else signature(common, common, common)

    return typer


@lower_builtin(operator.rshift, Vector, Vector)
def _lower_shift_right(_context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.ashr(*args) if sig.args[0].element.signed else builder.lshr(*args)


def _unary(function: Callable[..., Any], lower: Callable[[Any, Vector, Any], Any]) -> None:
    @type_callable(function)
    def type_unary(_context: Any) -> Callable[..., Any]:
        def typer(a: types.Type) -> Any:
            return a if isinstance(a, Vector) else None

        return typer

    @lower_builtin(function, Vector)
    def lower_unary(_context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return lower(builder, sig.args[0], args[0])


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def suffix(vector: Vector) -> str:
    """As LLVM's intrinsics spell a vector type: v8f32."""
    kind = "f32" if vector.is_float else str(vector.llvm.element)
    return f"v{vector.lanes}{kind}"


def _abs(builder: Any, vector: Vector, a: Any) -> Any:
    if vector.is_float:
        return call(builder, f"llvm.fabs.{suffix(vector)}", a.type, a)
    return builder.select(builder.icmp_signed("<", a, filled(a.type, 0)), builder.neg(a), a)


_unary(operator.neg, lambda builder, vector, a: builder.fneg(a) if vector.is_float else builder.neg(a))
_unary(operator.invert, lambda builder, vector, a: builder.not_(a))
_unary(abs, _abs)
