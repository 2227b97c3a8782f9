"""Runs a program of steps on some threads, none of which needs the others to be there.

A program is phases; a phase is chunks, in any order; a chunk is calls of steps, one after the other. A thread takes
the next chunk of a phase by a counter, and when there is none left waits until another counter says that all are
done. So a thread that comes late, or is put to sleep by a busy machine, holds up what it holds and no more.

Words of a program: phases, address of the phases (first chunk, number of chunks), of the chunks (first call, end),
of the calls (``CALL``), of the counters (two in 64 bytes for each phase, 0 at the start of a run), of scratch
memory, its bytes for each thread, and the address of a C function that lets other threads run.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.memory import add_atomically, call_nothing, pause, read_atomically, word

CALL = (
    5  # words of a call: function, arguments, first item, end, and the address of a word that limits it, or 0
)
COUNTERS = 8  # words of a phase's counters, a cache line
_SPINS = 300  # some ten microseconds of waiting, before others may have the core


@intrinsic
def _call_step(_typing, function, first, last, at, scratch):
    """Call a step's C function."""

    def codegen(context, builder, sig, args):
        i64, none = ir.IntType(64), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(none, [i64, i64, i64, i64, none])
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [*args[1:], ir.Constant(none, None)])
        return context.get_dummy_value()

    return types.none(*[types.int64] * 5), codegen


@kernel
def execute(thread, program):
    """One thread's part of a run; ``program`` is an address, and ``thread`` picks the scratch memory."""
    phases, chunks, calls = word(program, 1), word(program, 2), word(program, 3)
    counters = word(program, 4)
    scratch = word(program, 5) + thread * word(program, 6)
    for phase in range(word(program, 0)):
        first, count = word(phases, 2 * phase), word(phases, 2 * phase + 1)
        taken_at = counters + 8 * COUNTERS * phase
        while read_atomically(taken_at) < count:
            chunk = add_atomically(taken_at, 1)
            if chunk >= count:
                break
            at = chunks + 16 * (first + chunk)
            for i in range(word(at, 0), word(at, 1)):
                call = calls + 8 * CALL * i
                last = min(word(call, 3), word(word(call, 4), 0)) if word(call, 4) else word(call, 3)
                if word(call, 2) < last:
                    _call_step(word(call, 0), word(call, 2), last, word(call, 1), scratch)
            add_atomically(taken_at + 8, 1)
        spins = 0
        while read_atomically(taken_at + 8) < count:
            spins += 1
            if spins < _SPINS:
                pause()
            else:
                call_nothing(word(program, 7))
