"""The code that products compile to names the instructions of the instruction set it is for.

The kernels of this machine are disassembled as Numba made them. Tiles for other CPUs are compiled here, too,
which shows that LLVM knows the intrinsics and takes them for the target, but do not run.
"""

from __future__ import annotations

import importlib
import re

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from llvmlite import ir

from edgeq.devices.detect import instruction_set
from edgeq.kernels_cpu import isa as isas
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import panels
from edgeq.kernels_cpu.products.layout import layout_of
from edgeq.kernels_cpu.products.tiles import ROWS, emit_tile

_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
# Instruction set → target, patterns that its code must have, and those that it must not.
_WANTED = {
    isas.PORTABLE: (_X86, (), ("vpmaddubsw", "vpdpbusd")),
    isas.AVX2: (_X86, ("vpmaddubsw", "vpmaddwd"), ("vpdpbusd",)),
    isas.AVX_VNNI: (_X86, (r"\{vex\}", "vpdpbusd"), ("vpmaddubsw", "zmm")),
    isas.AVX512_VNNI: (_X86, ("vpdpbusd", "zmm"), ("vpmaddubsw",)),
    isas.NEON: (_ARM, (r"\bs?ml(al|a)|\bs?mull?",), ("sdot", "usdot")),
    isas.NEON_DOTPROD: (_ARM, ("sdot",), ("usdot",)),
    isas.NEON_I8MM: (_ARM, (r"usdot|usmmla",), (r"\bsdot",)),
}


def assembly(isa: Isa, triple: str, name: str, rows: int) -> str:
    """One tile, compiled for the instruction set and nothing above it."""
    module = importlib.import_module(f"edgeq.kernels_cpu.products.{name}")
    form = module.format_of(4, 32) if name == "blocked" else module.FORMAT
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 8), "tile")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit_tile(builder, layout_of(form, isa), rows, function.args)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = ",".join(f"+{feature}" for feature in sorted(isa.features))
    machine = llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    compiled = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(compiled, passes)
    return machine.emit_assembly(compiled)


@pytest.mark.parametrize("isa", _WANTED, ids=lambda isa: isa.name)
@pytest.mark.parametrize("name", ["q4_k", "q6_k", "q8_0", "iq4_xs", "blocked"])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_tiles_for_every_instruction_set(isa: Isa, name: str, rows: int):
    triple, wanted, unwanted = _WANTED[isa]
    code = assembly(isa, triple, name, rows)
    for pattern in wanted:
        assert re.search(pattern, code), pattern
    for pattern in unwanted:
        assert not re.search(pattern, code), pattern
    whole = rows > 1 and name in ("q8_0", "iq4_xs")  # codes of 8 bits, not in two digits
    assert isa != isas.AVX2 or ("vpsignb" in code) == whole
    assert isa != isas.NEON_I8MM or ("usmmla" in code, "usdot" in code) == (rows > 1, rows == 1)
    assert not re.search(r"\bcall|\tbl\t", code)  # nothing is left to a library


@pytest.mark.parametrize("isa", _WANTED, ids=lambda isa: isa.name)
def test_levels_are_looked_up_where_there_is_an_instruction(isa: Isa):
    looks_up = {_X86: "vpshufb", _ARM: r"\btbl\b"}[_WANTED[isa][0]]
    assert bool(re.search(looks_up, assembly(isa, _WANTED[isa][0], "iq4_nl", 1))) == (isa != isas.PORTABLE)


def test_the_kernels_of_this_machine():
    isa = instruction_set()
    rows = np.zeros((16, 144), np.uint8)
    packed = products.pack("Q4_K", rows, 256, isa)
    for t, function in ((1, panels.one_row), (ROWS, panels.many_rows)):
        kernel = numba.njit(function.py_func)
        x = products.quantized_for(packed, np.ones((t, 256), np.float32))
        out = np.zeros((t, packed.layout.rows), np.float32)
        kernel(0, len(packed.data), packed.layout, packed.data, *x, out)
        (code,) = kernel.inspect_asm().values()
        _, wanted, unwanted = _WANTED[isa]
        assert all(re.search(pattern, code) for pattern in wanted)
        assert not any(re.search(pattern, code) for pattern in unwanted)
