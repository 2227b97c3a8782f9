"""Values that a kernel knows by their type alone, so that it is compiled for each: a name and an instruction set."""

from __future__ import annotations

import functools
from typing import Any

from numba.core import types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from edgeq.kernels_cpu.compiling import Purpose
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.vectors import Lanes, lanes_type


class NamedType(types.Type):
    """The type of a pair (name, isa): ``subject`` says of what."""

    def __init__(self, subject: str, kind: str, lanes: Lanes) -> None:
        self.subject, self.kind, self.lanes = subject, kind, lanes
        self.purpose = Purpose(instruction_set=lanes.isa_name)
        super().__init__(name=f"{subject}({kind}, {lanes})")


register_model(NamedType)(models.OpaqueModel)


@functools.cache
def _named_type(subject: str, name: str, isa: Isa) -> NamedType:
    return NamedType(subject, name, lanes_type(isa))


def known_by_type(cls: Any) -> Any:
    """Class decorator of a NamedTuple with fields ``name`` and ``isa``."""

    @typeof_impl.register(cls)
    def typeof(value: Any, _context: Any) -> NamedType:
        return _named_type(cls.__name__, value.name, value.isa)

    return cls


@unbox(NamedType)
def _unbox(_type: NamedType, _value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


@intrinsic
def isa_of(_typing, named):
    """The instruction set of such a value."""
    if not isinstance(named, NamedType):
        return None
    return named.lanes(named), lambda context, builder, sig, args: context.get_dummy_value()
