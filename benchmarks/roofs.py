"""What this machine can do at best, measured in the process that compares with it."""

from __future__ import annotations

import time

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgeq.kernels_cpu import simd, threads
from edgeq.kernels_cpu.integer_dot import dot4, has_dot4, multiply_pairs, pair_sums
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.registers import I8, I16, I32, I64, Emitter
from edgeq.kernels_cpu.vectors import Lanes


def clock() -> float:
    """Seconds. With one thread those that it ran, so that other processes cost nothing but their cache."""
    return time.thread_time() if threads.get_threads() == 1 else time.perf_counter()


_CHAINS = 12  # of dependent instructions: enough to hide their latency, few enough for the registers


@intrinsic
def _multiply(_typing, isa, rounds, at):
    """Integer products on registers alone; ``at`` is where the sums end, lest they be optimised away."""
    if not isinstance(isa, Lanes):
        return None

    def codegen(context, builder, sig, args):
        e = Emitter(builder, isa.lanes, isa.features)
        x, ones = e.load(args[2], 0, I8, 4 * e.lanes), e.constant(I16, 2 * e.lanes, 1)
        sums = [e.variable(e.load(args[2], 4 * e.lanes * i, I32, e.lanes)) for i in range(_CHAINS)]
        with e.loop(builder.sdiv(args[1], ir.Constant(I64, _CHAINS))):
            for total in sums:
                codes = total.get().bits_as(I8, 4 * e.lanes)
                if has_dot4(e.features):
                    total.set(dot4(e, total.get(), codes, x))
                else:
                    total.set(total.get() + multiply_pairs(e, pair_sums(e, codes, x), ones))
        for i, total in enumerate(sums):
            e.store(args[2], 4 * e.lanes * i, total.get())
        return context.get_dummy_value()

    return types.none(isa, types.int64, types.int64), codegen


@numba.njit(nogil=True)
def _multiply_rounds(first: int, last: int, isa: Isa, rounds: int) -> int:
    memory = np.ones(_CHAINS * 64, np.uint8)
    _multiply(isa, rounds, simd.address(memory))
    return memory[0]


def peak_gops(isa: Isa, rounds: int = 1 << 20) -> float:
    """10^9 operations per second, two for each multiply-accumulate of int8, on all threads.

    With AVX2: vpmaddubsw + vpmaddwd + vpaddd for 32 of them; with VNNI: vpdpbusd.
    """
    start = clock()
    n = threads.get_threads()
    threads.run(_multiply_rounds, n, threads.GRAIN_VALUES, isa, rounds)
    return n * rounds * isa.float_lanes * 8 / (clock() - start) / 1e9


@numba.njit(nogil=True)
def _read(first: int, last: int, words: np.ndarray) -> int:
    total = 0
    for i in range(first, last):
        total ^= words[i]
    return total


def read_gbs(words: np.ndarray) -> float:
    """GB/s of reading int64 on all threads; larger than the caches."""
    start = clock()
    threads.run(_read, words.size, 1, words)
    return words.nbytes / (clock() - start) / 1e9
