"""Registers while a kernel's code is emitted: what ``vectors`` is inside a kernel, for an ``@intrinsic`` that
writes a whole tile.

A tile of accumulators is a grid of registers that Python loops at emission time, which plain kernel code
cannot say. A ``Register`` has Python's operators, so that such code still reads like arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from edgeq.kernels_cpu.vectors import call, filled, splatted

I8, I16, I32, I64, F16, F32 = (
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.HalfType(),
    ir.FloatType(),
)


class Register:
    """An LLVM vector; operators work lane by lane, a Python number is broadcast, ``>>`` shifts in zeros."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder = builder
        self.value = value

    @property
    def kind(self) -> ir.VectorType:
        return self.value.type

    def _of(self, value: Any) -> Register:
        return Register(self.builder, value)

    def _operand(self, other: Register | float) -> Any:
        return other.value if isinstance(other, Register) else filled(self.kind, other)

    def _apply(self, floats: str, integers: str, other: Register | float) -> Register:
        name = floats if isinstance(self.kind.element, ir.FloatType) else integers
        return self._of(getattr(self.builder, name)(self.value, self._operand(other)))

    def __add__(self, other: Register | float) -> Register:
        return self._apply("fadd", "add", other)

    def __sub__(self, other: Register | float) -> Register:
        return self._apply("fsub", "sub", other)

    def __mul__(self, other: Register | float) -> Register:
        return self._apply("fmul", "mul", other)

    def __and__(self, other: Register | float) -> Register:
        return self._of(self.builder.and_(self.value, self._operand(other)))

    def __or__(self, other: Register | float) -> Register:
        return self._of(self.builder.or_(self.value, self._operand(other)))

    def __xor__(self, other: Register | float) -> Register:
        return self._of(self.builder.xor(self.value, self._operand(other)))

    def __lshift__(self, bits: int) -> Register:
        return self._of(self.builder.shl(self.value, filled(self.kind, bits)))

    def __rshift__(self, bits: int) -> Register:
        return self._of(self.builder.lshr(self.value, filled(self.kind, bits)))

    def signed_shift(self, bits: int) -> Register:
        """Shift right, filling with the sign."""
        return self._of(self.builder.ashr(self.value, filled(self.kind, bits)))

    def bits_as(self, element: ir.Type, lanes: int) -> Register:
        """The same bits as a vector of other elements."""
        return self._of(self.builder.bitcast(self.value, ir.VectorType(element, lanes)))

    def extended(self, element: ir.Type, signed: bool) -> Register:
        """Integers with as many lanes of a wider element."""
        extend = self.builder.sext if signed else self.builder.zext
        return self._of(extend(self.value, ir.VectorType(element, self.kind.count)))

    def as_floats(self) -> Register:
        """Signed integers, or half floats, to float32."""
        wide = ir.VectorType(F32, self.kind.count)
        halves = isinstance(self.kind.element, ir.HalfType)
        return self._of((self.builder.fpext if halves else self.builder.sitofp)(self.value, wide))

    def shuffled(self, lanes: Sequence[int], other: Register | None = None) -> Register:
        """Those lanes of this register, or of both put one behind the other."""
        second = self.value if other is None else other.value
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self._of(self.builder.shuffle_vector(self.value, second, mask))


def transposed(rows: Sequence[Register]) -> list[Register]:
    """As many registers as each has lanes, a power of 2: lane i of register k of the result is lane k of register i."""
    registers, lanes = list(rows), range(len(rows))
    step = 1
    while step < len(rows):
        for i in (i for i in lanes if not i & step):
            a, b = registers[i], registers[i + step]
            registers[i] = a.shuffled([k + len(rows) - step if k & step else k for k in lanes], b)
            registers[i + step] = a.shuffled([k + len(rows) if k & step else k + step for k in lanes], b)
        step *= 2
    return registers


class Variable:
    """A register that changes in a loop; the optimiser turns it into one."""

    def __init__(self, builder: ir.IRBuilder, start: Register) -> None:
        self._builder = builder
        self._slot = cgutils.alloca_once(builder, start.kind)
        self.set(start)

    def set(self, register: Register) -> None:
        self._builder.store(register.value, self._slot)

    def get(self) -> Register:
        return Register(self._builder, self._builder.load(self._slot))


class Cell:
    """A register's worth of memory, read and written whenever it is asked for or set."""

    def __init__(self, e: Emitter, at: Any, element: ir.Type) -> None:
        self._e, self._at, self._element = e, at, element

    def set(self, register: Register) -> None:
        self._e.store(self._at, 0, register)

    def get(self) -> Register:
        return self._e.load(self._at, 0, self._element, self._e.lanes)


class Emitter:
    """Memory, constants and loops. Addresses are int64 values of LLVM, offsets Python's integers in bytes."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, features: frozenset[str]) -> None:
        self.builder = builder
        self.lanes = lanes  # of 32 bits
        self.features = features

    def _pointer(self, at: Any, offset: int, kind: ir.Type) -> Any:
        base = self.builder.inttoptr(at, I8.as_pointer())
        moved = self.builder.gep(base, [ir.Constant(I64, offset)])
        return self.builder.bitcast(moved, kind.as_pointer())

    def load(self, at: Any, offset: int, element: ir.Type, count: int) -> Register:
        """``count`` elements from any address."""
        kind = ir.VectorType(element, count)
        return Register(self.builder, self.builder.load(self._pointer(at, offset, kind), align=1))

    def load_word(self, at: Any, offset: int, element: ir.Type) -> Register:
        """One 32-bit element in every lane."""
        word = self.builder.load(self._pointer(at, offset, element), align=1)
        return Register(self.builder, splatted(self.builder, word, self.lanes))

    def store(self, at: Any, offset: int, register: Register) -> None:
        self.builder.store(register.value, self._pointer(at, offset, register.kind), align=1)

    def prefetch(self, at: Any, offset: int) -> None:
        """Bring a cache line near, but not so near that it drives out what is in use; any address will do."""
        pointer, flags = self._pointer(at, offset, I8), [ir.Constant(I32, flag) for flag in (0, 2, 1)]
        call(self.builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *flags)

    def constant(self, element: ir.Type, count: int, value: float | Sequence[int]) -> Register:
        """A number in every lane, or one for each."""
        kind = ir.VectorType(element, count)
        same = isinstance(value, (int, float))
        return Register(self.builder, filled(kind, value) if same else ir.Constant(kind, list(value)))  # type: ignore

    def together(self, parts: Sequence[Register]) -> Register:
        """Registers of one lane each as the lanes of one."""
        element = parts[0].kind.element
        whole = ir.Constant(ir.VectorType(element, len(parts)), ir.Undefined)
        for i, part in enumerate(parts):
            one = self.builder.extract_element(part.value, ir.Constant(I32, 0))
            whole = self.builder.insert_element(whole, one, ir.Constant(I32, i))
        return Register(self.builder, whole)

    def zero(self, element: ir.Type) -> Register:
        return self.constant(element, self.lanes, 0.0 if element == F32 else 0)

    def variable(self, start: Register) -> Variable:
        return Variable(self.builder, start)

    def held(self, register: Register) -> Register:
        """The same register, x86's, of which LLVM does not know what it holds: sums on both sides keep their order."""
        kind = ir.FunctionType(register.kind, [register.kind])
        return Register(self.builder, self.builder.call(ir.InlineAsm(kind, "", "=x,0"), [register.value]))

    def fma(self, a: Register, b: Register, c: Register) -> Register:
        """a · b + c, rounded once where there is an instruction, else twice."""
        if self.features & {"fma", "neon"}:
            name = f"llvm.fma.v{self.lanes}f32"
            return Register(self.builder, call(self.builder, name, a.kind, a.value, b.value, c.value))
        return a * b + c

    def sum_of(self, register: Register) -> Register:
        """The sum of its lanes, in a register of one."""
        while register.kind.count > 1:
            half = register.kind.count // 2
            register = register.shuffled(range(half)) + register.shuffled(range(half, 2 * half))
        return register

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """A loop that runs at least once, and that LLVM leaves one; its int64 index.

        Written out, sums would be reordered into trees that need more registers than there are.
        """
        b = self.builder
        before, body = b.block, b.append_basic_block("body")
        b.branch(body)
        b.position_at_end(body)
        index = b.phi(I64)
        index.add_incoming(ir.Constant(I64, 0), before)
        yield index
        following = b.add(index, ir.Constant(I64, 1))
        index.add_incoming(following, b.block)
        end = b.append_basic_block("end")
        b.cbranch(b.icmp_signed("<", following, count), body, end).set_metadata("llvm.loop", self._rolled())
        b.position_at_end(end)

    def _rolled(self) -> Any:
        """Metadata of a loop that is not to be unrolled: a node that names itself first."""
        module = self.builder.module
        disable = module.add_metadata(["llvm.loop.unroll.disable"])
        loop = module.add_metadata([disable, ir.Constant(I64, len(module.metadata))])  # one of its own
        loop.operands = (loop, disable)
        return loop

    def moved(self, at: Any, index: Any, stride: int) -> Any:
        """at + index · stride."""
        return self.builder.add(at, self.builder.mul(index, ir.Constant(I64, stride)))

    def offset(self, at: Any, nbytes: int) -> Any:
        """at + nbytes."""
        return self.builder.add(at, ir.Constant(I64, nbytes))
