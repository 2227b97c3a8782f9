"""Allocation of an ONNX graph: bits of blocked weights by name, their bytes, graphs written for trials.

The errors of 4 and 8 bits in blocks are taken from GGUF's types of the same grid, which stand for them here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgeq.allocation.candidates import Candidate, candidates
from edgeq.allocation.job import Job, Types
from edgeq.allocation.meter import Runtime
from edgeq.convert import onnx_graph
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.formats.onnx.linear import find_linears
from edgeq.source import ModelSource

_QUERIES, _JOINED = ".attn_q.", ".attn_qkv."
STANDS_FOR = {"int4": "Q4_0", "int8": "Q8_0", "float16": "F16"}
_BITS = {"Q4_0": 4, "Q8_0": 8, "F16": 16}
_GRAPH_SLACK = 4096  # bytes of a graph that other choices of bits may add


def parse_names(text: str | None) -> tuple[str, ...]:
    """``int4,int8`` as the types that stand for them; all without a text. Raises UsageError."""
    names = list(STANDS_FOR) if text is None else [part.strip().lower() for part in text.split(",")]
    unknown = next((name for name in names if name not in STANDS_FOR), None)
    if unknown is not None:
        raise UsageError(f"--types {unknown}: ONNX's blocked weights are {', '.join(STANDS_FOR)}")
    return tuple(STANDS_FOR[name] for name in names)


@dataclass(frozen=True)
class Layers:
    """The linear layers of a graph: ``options`` by tensor, and the tensors that a layer has beside the one named.

    What a dialect makes one product of (queries, keys and values) has one number of bits, under the queries' name.
    """

    options: dict[str, list[Candidate]]
    joined: Mapping[str, tuple[str, ...]]

    def all_types(self, types: Types) -> Types:
        """With the tensors that follow another."""
        more = {part: kind for name, kind in types.items() for part in self.joined.get(name, ())}
        return {**types, **more}

    def bits(self, types: Types) -> dict[str, int]:
        """What ``QuantOptions.bits`` wants, by the graph's names."""
        return {
            name.replace(_QUERIES, _JOINED) if name in self.joined else name: _BITS[kind]
            for name, kind in types.items()
        }


def layers_of(source: ModelSource, dialect: str, types: Sequence[str], block_size: int) -> Layers:
    """The candidates of each linear layer's weight. Raises InputError for a graph with others, such as experts."""
    joined: dict[str, tuple[str, ...]] = {}
    names = dict.fromkeys(str(layer.weight.name) for layer in find_linears(onnx_graph.build(source, dialect)))
    for name in list(names):
        parts = tuple(name.replace(_JOINED, part) for part in (_QUERIES, ".attn_k.", ".attn_v."))
        if _JOINED in name and not source.has(name) and all(map(source.has, parts)):
            joined[parts[0]] = parts[1:]
            names[parts[0]] = names.pop(name)
        elif not source.has(name):
            raise InputError(
                f"{source.path}: the bits of {name} cannot be chosen; take --to gguf or --quant int4"
            )

    def size(name: str, kind: str) -> int:
        """Integers, and a float32 scale for each block."""
        shapes = [source.shape(part) for part in (name, *joined.get(name, ()))]
        blocks = sum(prod(shape[:-1]) * -(-shape[-1] // block_size) for shape in shapes)
        return sum(map(prod, shapes)) * _BITS[kind] // 8 + (4 * blocks if _BITS[kind] < 16 else 0)

    found = candidates(((name, source.shape(name)) for name in names), types)
    options = {
        name: [Candidate(kind.type_name, size(name, kind.type_name)) for kind in kinds]
        for name, kinds in found.items()
    }
    return Layers(options, joined)


@contextmanager
def opened(path: Path, pooling: str, threads: int) -> Iterator[OnnxRuntime]:
    """The graph in ONNX Runtime."""
    yield OnnxRuntime(path, pooling, threads)


def choose_bits(
    job: Job,
    layers: Layers,
    folder: Path,
    write: Callable[[Mapping[str, int], Path], int],
    threads: int,
) -> tuple[dict[str, int], dict[str, Any]]:
    """The bits of each weight that meet the job's goal, as ``Layers.bits`` names them, and ``Job.record``.

    ``write`` makes the graph of these bits at that path, which is in ``folder``, and says how many bytes it has.
    Raises EdgeqError.
    """
    path = folder / "trial.onnx"

    def trial(types: Types) -> AbstractContextManager[Runtime]:
        write(layers.bits(types), path)
        return opened(path, job.source.hp.pooling, threads)

    least = {name: kinds[0] for name, kinds in layers.options.items()}
    smallest = write(layers.bits({name: kind.type_name for name, kind in least.items()}), path)
    fixed = smallest + _GRAPH_SLACK - sum(kind.nbytes for kind in least.values())
    record = job.record(layers.options, trial, fixed_bytes=fixed, all_types=layers.all_types)
    return layers.bits(record["types"]), record
