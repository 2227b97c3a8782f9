"""Steps laid out in memory: a program that ``executor`` runs, for one token or for many."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.steps import Buffer, Place, Step, Value, Word
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.attention import ROWS as QUERIES
from edgeq.kernels_cpu.steps import STATE_ROWS, STATE_START, address_of
from edgeq.kernels_cpu.steps.executor import CALL, COUNTERS, execute

_LEAST_WORK = 1 << 15  # values of a chunk: some microseconds
_CHUNKS = 4  # of each phase, for each thread
_LINE = 64


@dataclass
class Phase:
    """Steps between which no thread waits: one after the other on the same rows, or side by side."""

    steps: list[Step]
    written: set[int] = field(default_factory=set)  # ids of buffers

    def takes(self, step: Step) -> bool:
        """Whether the step may join."""
        first = self.steps[0]
        if step.rows or first.rows:
            return step.rows == first.rows and step.limit == first.limit
        return not any(id(buffer) in self.written for buffer in step.reads)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.written.update(map(id, step.writes))


def phases_of(steps: Sequence[Step]) -> list[Phase]:
    """The steps in their order, as few phases as that allows."""
    phases: list[Phase] = []
    for step in steps:
        if not phases or not phases[-1].takes(step):
            phases.append(Phase([]))
        phases[-1].add(step)
    return phases


class Program:
    """Steps with addresses. One run at a time."""

    def __init__(
        self, steps: Sequence[Step], inputs: Sequence[Value], output: Value, state_words: int
    ) -> None:
        phases = phases_of(steps)
        self._memory = _allot(phases, inputs, output)
        self.state = np.zeros(state_words, np.int64)
        self._kept: list[NDArray[Any]] = []
        self._scratch_need = max(step.scratch for step in steps)
        self._scratch = np.empty(0, np.uint8)
        arguments = self._arguments(steps)
        phase_words, chunk_words, call_words = _calls(phases, arguments, self._number)
        self._counters = _aligned(8 * COUNTERS * len(phases)).view(np.int64)
        tables = (phase_words, chunk_words, call_words, self._counters)
        self._kept += tables
        self._program = np.array(
            [len(phases), *(table.ctypes.data for table in tables), 0, 0, _yield_address()], np.int64
        )
        self._address = np.int64(self._program.ctypes.data)

    def view(self, value: Value) -> NDArray[np.float32]:
        """A value's floats, ``[rows, width]``, in the program's memory."""
        at = value.buffer.address - self._memory.ctypes.data
        whole = self._memory[at : at + value.rows * value.row_bytes].reshape(value.rows, -1)
        return whole.view(np.float32)[:, value.offset // 4 :][:, : value.width]

    def run(self) -> None:
        """Run on all threads, with what is in the state and in the inputs."""
        n = threads.get_threads()
        positions = int(self.state[STATE_ROWS] + self.state[STATE_START]) + _LINE
        need = max(self._scratch_need, 4 * QUERIES * positions) + _LINE
        if self._program[6] < need or len(self._scratch) < self._program[6] * n:
            each = -(-2 * need // _LINE) * _LINE
            self._scratch = _aligned(each * n)
            self._program[5:7] = self._scratch.ctypes.data, each
        self._counters.fill(0)
        threads.together(n, execute, self._address)

    def _arguments(self, steps: Sequence[Step]) -> dict[Step, int]:
        """The address of each step's words."""
        size = sum(len(step.words) for step in steps)
        words = np.zeros(size, np.int64)
        reals = words.view(np.float32).reshape(-1, 2)
        self._kept.append(words)
        addresses, at = {}, 0
        for step in steps:
            addresses[step] = words.ctypes.data + 8 * at
            for word in step.words:
                if isinstance(word, float):
                    reals[at, 0] = word
                else:
                    words[at] = self._number(word)
                at += 1
        return addresses

    def _number(self, word: Word) -> int:
        if isinstance(word, Value):
            return word.buffer.address + word.offset
        if isinstance(word, Buffer):
            return word.address
        if isinstance(word, Place):
            return self.state.ctypes.data
        if isinstance(word, np.ndarray):
            self._kept.append(word)
            return word.ctypes.data
        return int(word)


def _allot(phases: Sequence[Phase], inputs: Sequence[Value], output: Value) -> NDArray[np.uint8]:
    """Memory for all buffers; one is used again when the phase of its last reader is over."""
    last: dict[Buffer, int] = {output.buffer: len(phases)}
    for i, phase in enumerate(phases):
        for step in phase.steps:
            for buffer in (*step.reads, *step.writes):
                last[buffer] = max(i, last.get(buffer, 0))
    free: dict[int, list[int]] = {}
    offsets: dict[Buffer, int] = {}
    size = 0
    dying: dict[int, list[Buffer]] = {}
    born = [[value.buffer for value in inputs]]
    born += [[buffer for step in phase.steps for buffer in step.writes] for phase in phases]
    for i, buffers in enumerate(born):
        for buffer in buffers:
            if buffer in offsets or not buffer.nbytes:
                continue
            nbytes = -(-buffer.nbytes // _LINE) * _LINE
            waiting = free.setdefault(nbytes, [])
            if waiting:
                offsets[buffer] = waiting.pop()
            else:
                offsets[buffer], size = size, size + nbytes
            dying.setdefault(last.get(buffer, 0), []).append(buffer)
        for buffer in dying.pop(i - 1, []):
            free[-(-buffer.nbytes // _LINE) * _LINE].append(offsets[buffer])
    memory = _aligned(size)
    for buffer, offset in offsets.items():
        buffer.address = memory.ctypes.data + offset
    return memory


def _calls(
    phases: Sequence[Phase], arguments: dict[Step, int], number: Callable[[Word], int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The tables of phases, chunks and calls, as ``executor`` reads them."""
    phase_words: list[tuple[int, int]] = []
    chunk_words: list[tuple[int, int]] = []
    call_words: list[tuple[int, ...]] = []
    for phase in phases:
        first = len(chunk_words)
        for chunk in _chunks(phase):
            start = len(call_words)
            for step, begin, end in chunk:
                function = address_of(step.kernel, step.kind)
                call_words.append((function, arguments[step], begin, end, number(step.limit)))
            chunk_words.append((start, len(call_words)))
        phase_words.append((first, len(chunk_words) - first))
    tables = (phase_words, chunk_words, np.array(call_words, np.int64).reshape(-1, CALL))
    return np.array(tables[0], np.int64), np.array(tables[1], np.int64), tables[2]


def _chunks(phase: Phase) -> list[list[tuple[Step, int, int]]]:
    """What one thread does at a time: calls of steps with their first item and end."""
    most = _CHUNKS * threads.get_threads()
    rows = phase.steps[0].rows
    if rows:
        ranges = _ranges(rows, min(rows, most))
        return [[(step, first, end) for step in phase.steps] for first, end in ranges]
    chunks = []
    for step in phase.steps:
        parts = max(1, min(step.items, max(most, step.chunks), step.items * step.work // _LEAST_WORK))
        chunks += [[(step, first, end)] for first, end in _ranges(step.items, parts)]
    return chunks


def _ranges(n: int, parts: int) -> list[tuple[int, int]]:
    return [(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeros from a cache line on."""
    memory = np.zeros(nbytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + nbytes]


@functools.cache
def _yield_address() -> int:
    """The C function that lets other threads run; 0 where it is not found."""
    try:
        if sys.platform == "win32":
            function = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
