"""ONNX Runtime: loading a graph, feeding tokens, reading logits or hidden states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, OutOfMemoryError

Feeds = dict[str, NDArray[Any]]
VERSION: str = ort.__version__


CPU = "CPUExecutionProvider"
# ONNX Runtime's names of tensors' types whose NumPy name is another.
_TYPES = {"float": "float32", "double": "float64"}

# ``std::bad_alloc``, and what BFCArena and the CUDA provider throw (core/framework/bfc_arena.cc, ORT_THROW).
_MEMORY = re.compile(r"bad.?alloc|failed to allocate|available memory|out of memory", re.IGNORECASE)


class OnnxSession:
    """A graph in ONNX Runtime, by default in its CPU provider. ``threads`` 0 leaves the count to the runtime.

    ``config`` holds entries for the session, as ``session_config.json`` has them. ``providers`` are execution providers
    by the runtime's names, the best first; those that are not installed are left out, and the CPU's comes last.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 0,
        config: Mapping[str, str] | None = None,
        providers: Sequence[str] = (),
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, too
        options.intra_op_num_threads = threads
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        installed = [name for name in providers if name in ort.get_available_providers()]
        try:
            chosen = list(dict.fromkeys([*installed, CPU]))
            self.runtime = ort.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # the runtime raises its own unrelated types
            raise _refusal(path, "load", error) from None
        self.path = path
        self.inputs = {i.name: list(i.shape) for i in self.runtime.get_inputs()}
        self.types = {i.name: _numpy_type(i.type) for i in self.runtime.get_inputs()}
        self.outputs = [o.name for o in self.runtime.get_outputs()]
        self.replaced: Feeds = {}  # values for the next runs, of weights that are inputs, too

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The named outputs, fed with what the graph knows of ``feeds``; raises EdgeqError when the runtime refuses.

        Floats are given in the graph's own width: caches of a float16 graph are float16.
        """
        try:
            known = {name: self._typed(name, value) for name, value in feeds.items() if name in self.inputs}
            result: list[NDArray[np.float32]] = self.runtime.run(list(outputs), known | self.replaced)
        except Exception as error:  # as above
            raise _refusal(self.path, "run", error) from None
        return result

    def _typed(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        wanted = self.types[name]
        is_wider = value.dtype == np.float32 and wanted == "float16"
        return value.astype(np.float16) if is_wider else value

    def empty_past(self) -> Feeds:
        """Empty cache tensors for every ``past_key_values`` input."""
        caches = {name: shape for name, shape in self.inputs.items() if name.startswith("past_key_values.")}
        for name, shape in caches.items():
            if len(shape) != 4 or not isinstance(shape[1], int) or not isinstance(shape[3], int):
                raise EdgeqError(f"{self.path}: input {name} does not say its heads and their width")
        return {
            name: np.zeros((1, shape[1], 0, shape[3]), self.types[name]) for name, shape in caches.items()
        }

    def past_of(self, present: Sequence[NDArray[np.float32]]) -> Feeds:
        """The cache inputs of the next run, from the ``present.*`` outputs of this one, in output order."""
        names = [name for name in self.outputs if name.startswith("present.")]
        return {
            re.sub("^present", "past_key_values", name): value
            for name, value in zip(names, present, strict=True)
        }


def encoder_feeds(sequences: Sequence[Sequence[int]]) -> Feeds:
    """Token ids ``[batch, T]`` padded to the longest sequence, with their mask."""
    width = max(map(len, sequences))
    ids = np.zeros((len(sequences), width), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def decoder_feeds(tokens: Sequence[int], past: Feeds) -> Feeds:
    """One sequence after the tokens in ``past``: what ``past_of`` made of the run before, or ``empty_past``."""
    start = next(iter(past.values())).shape[2]
    ids = np.asarray([tokens], np.int64)
    feeds: Feeds = {
        "input_ids": ids,
        "attention_mask": np.ones((1, start + ids.shape[1]), np.int64),
        "position_ids": np.arange(start, start + ids.shape[1], dtype=np.int64)[None],
    }
    return feeds | past


def empty_past(n_layers: int, n_kv_heads: int, head_dim: int) -> Feeds:
    """Cache inputs of an edgeq decoder graph before the first token."""
    empty = np.zeros((1, n_kv_heads, 0, head_dim), np.float32)
    return {
        f"past_key_values.{layer}.{part}": empty for layer in range(n_layers) for part in ("key", "value")
    }


def _numpy_type(name: str) -> str:
    """``tensor(float16)`` as NumPy names it; float32 for what is no tensor."""
    inner = name.removeprefix("tensor(").removesuffix(")") if name.startswith("tensor(") else "float"
    return _TYPES.get(inner, inner)


def _refusal(path: Path, doing: str, error: Exception) -> EdgeqError:
    """The runtime's error as ours. Its allocators have no type of their own, so they are known by their words."""
    said = _first_line(error)
    kind = OutOfMemoryError if isinstance(error, MemoryError) or _MEMORY.search(str(error)) else EdgeqError
    return kind(f"{path}: ONNX Runtime cannot {doing} it ({said})")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
