"""Decoders of GGUF files at full speed: recorded programs on packed weights, activations in 8 bits as in ggml."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.devices.detect import instruction_set
from edgeq.engine.model import check_tokens
from edgeq.engine.packed import PackedWeights, StepWeights
from edgeq.engine.program import Program
from edgeq.engine.recorder import POSITIONS, Recorder, fold_sums
from edgeq.engine.steps import NotRecordableError
from edgeq.errors import InputError
from edgeq.families import Family, HyperParameters
from edgeq.families.rope import Rope
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.gguf_family import read_gguf
from edgeq.kernels_cpu import attention
from edgeq.kernels_cpu.cached import PANEL, Cached, CacheType
from edgeq.kernels_cpu.steps import STATE_CAPACITY, STATE_ROWS, STATE_START

Floats = NDArray[np.float32]

CHUNK = 256  # tokens of one run while a long text is read
_LEAST_CAPACITY = 256


class FastCache:
    """Keys and values of one sequence, as programs read them; doubled when full.

    ``expected`` is how long the sequence may become, as far as that is known when it begins.
    """

    def __init__(self, hp: HyperParameters, cached: Cached, expected: int = 0) -> None:
        self.length, self.expected, self.capacity = 0, expected, 0
        self.addresses = np.zeros(2 * hp.n_layers, np.int64)
        self._hp, self._cached = hp, cached
        self._shape = (hp.n_layers, hp.n_kv_heads, hp.head_dim, cached)
        self.parts: list[NDArray[np.uint8]] = []

    def check_fits(self, hp: HyperParameters, cached: Cached) -> None:
        """Raise InputError where it was made for a model of another shape, or for another type of cache."""
        if (hp.n_layers, hp.n_kv_heads, hp.head_dim, cached) != self._shape:
            raise InputError("this cache was made by another model; take new_cache() of the one that reads")

    def begin(self, tokens: int) -> None:
        """Say how many tokens the first text has, before it is read."""
        if not self.length:
            self.expected = max(self.expected, tokens)

    def reserve(self, positions: int) -> None:
        """Make room for so many positions in all."""
        if positions <= self.capacity:
            return
        wanted = max(positions, 2 * self.capacity, _LEAST_CAPACITY)
        if not self.capacity:
            wanted = max(wanted, min(self.expected, self._hp.context))
        capacity = -(-wanted // PANEL) * PANEL
        hp, old, self.parts = self._hp, self.parts, []
        for _ in range(hp.n_layers):
            self.parts += attention.empty(hp.n_kv_heads, capacity, hp.head_dim, self._cached)
        for before, after in zip(old, self.parts, strict=bool(old)):
            after[:, : before.shape[1]] = before
        self.capacity = capacity
        self.addresses[:] = [part.ctypes.data for part in self.parts]


@dataclass
class _Recorded:
    """A program and how to fill it."""

    program: Program
    inputs: list[tuple[str, bool, Floats]]  # table, whether by position, where its rows go
    output: Floats
    ropes: dict[Rope, int]
    layer_words: NDArray[np.int64]


class FastModel:
    """A decoder that generates. Several threads may use it: they take turns. Raises as ``Model`` does."""

    def __init__(
        self, family: Family, hp: HyperParameters, weights: StepWeights, name: str, cached: Cached
    ) -> None:
        self.family, self.hp, self.weights, self.name = family, hp, weights, name
        self._cached = cached
        self._lock = threading.Lock()
        self._recorded: dict[tuple[bool, bool], _Recorded] = {}
        self._frequencies: dict[tuple[Rope, bool], Floats] = {}
        self._record(False, True)

    def new_cache(self, expected: int = 0) -> FastCache:
        """An empty key-value cache for one sequence, which may get ``expected`` tokens."""
        return FastCache(self.hp, self._cached, expected)

    def logits(
        self, tokens: Sequence[int], cache: FastCache | None = None, last_only: bool = False
    ) -> Floats:
        """Logits ``[T, vocab]`` (``[1, vocab]`` with ``last_only``) after each token; the cache is moved on."""
        check_tokens(tokens, self.hp, self.name)
        cache = self.new_cache() if cache is None else cache
        cache.check_fits(self.hp, self._cached)
        cache.begin(len(tokens))
        parts = [
            self._run(tokens[start : start + CHUNK], cache, last_only)
            for start in range(0, len(tokens), CHUNK)
        ]
        return parts[-1] if last_only else np.concatenate(parts)

    def prefill(self, tokens: Sequence[int], cache: FastCache) -> Floats:
        """Read a prompt of any length in chunks; logits ``[vocab]`` after its last token."""
        return self.logits(tokens, cache, last_only=True)[-1]

    def _run(self, tokens: Sequence[int], cache: FastCache, last_only: bool) -> Floats:
        many = len(tokens) > 1
        with self._lock:
            recorded = self._record(many, last_only or not many)
            self._fill(recorded, np.asarray(tokens, np.int64), cache)
            recorded.program.run()
            cache.length += len(tokens)
            return recorded.output[: 1 if last_only else len(tokens)].copy()

    def _fill(self, recorded: _Recorded, ids: NDArray[np.int64], cache: FastCache) -> None:
        cache.reserve(cache.length + len(ids))
        state = recorded.program.state
        state[STATE_ROWS], state[STATE_START] = len(ids), cache.length
        state[STATE_CAPACITY] = cache.capacity
        state[recorded.layer_words] = cache.addresses
        for rope, word in recorded.ropes.items():
            long = rope.longrope is not None and cache.expected > rope.longrope.original
            if (rope, long) not in self._frequencies:
                self._frequencies[rope, long] = rope.frequencies(long)
            state[word] = self._frequencies[rope, long].ctypes.data
        for name, by_position, to in recorded.inputs:
            end = cache.length + len(ids)
            if by_position and end > self.hp.context:
                raise InputError(f"{self.name}: {end} tokens are more than its {self.hp.context} positions")
            to[: len(ids)] = self.weights.picked(name, np.arange(cache.length, end) if by_position else ids)

    def _record(self, many: bool, last_only: bool) -> _Recorded:
        if (many, last_only) not in self._recorded:
            recorder = Recorder(self.weights, CHUNK if many else 1, last_only, self.weights.isa, self._cached)
            output = self.family.forward(recorder, self.hp)
            values = [given.value for given in recorder.inputs]
            program = Program(fold_sums(recorder.steps), values, output, recorder.state_words)
            inputs = [
                (given.name, given.ids is POSITIONS, program.view(given.value)) for given in recorder.inputs
            ]
            first = [recorder.layers[i] for i in range(self.hp.n_layers)]
            words = np.array([first, [word + 1 for word in first]]).T.reshape(-1)
            self._recorded[many, last_only] = _Recorded(
                program, inputs, program.view(output), recorder.ropes, words
            )
        return self._recorded[many, last_only]


def from_gguf(file: GGUFFile, cache_type: CacheType = "F16", keep_packed: bool = False) -> FastModel:
    """The model of an opened GGUF file, packed; with ``keep_packed`` in the user's cache, too (``prepacked``).

    Raises NotRecordableError for what no step does (``Model`` computes it), EdgeqError for a bad file.
    """
    family, hp, specs = read_gguf(file)
    if not family.generates(hp):
        raise NotRecordableError("is an encoder, which the exact mode reads")
    isa = instruction_set()
    weights = PackedWeights(file, specs, isa, keep_packed)
    return FastModel(family, hp, weights, file.path.name, Cached(cache_type, isa))
