"""What the quants of an ONNX file work with, and their registry."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.cached import cached_ranges, data_hash
from edgeq.calibration.collect import collect_ranges
from edgeq.calibration.methods import Method
from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import Scales
from edgeq.calibration.sources import Samples
from edgeq.errors import UsageError
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.int8 import Granularities, Granularity
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.blocked_weights import Form
from edgeq.formats.onnx.recurrent import find_recurrents
from edgeq.formats.onnx.rows import let_go
from edgeq.onnx.isa import Profile
from edgeq.onnx.node_types import FLOAT, NodeType, find_layers, types_of

_PIECE = 1 << 20  # numbers
Apply = Callable[[ir.Model, Collection[str]], None]


@dataclass(frozen=True)
class Pass:
    """One pass over the calibration data: how many samples were seen, and whether that came from the cache."""

    stage: str
    samples: int
    cached: bool
    seconds: float


@dataclass(frozen=True)
class Blocks:
    """How weights are rounded in blocks, and written (``BlockedOptions``); ``nearest``: as ONNX Runtime rounds.

    ``method`` of ``edgeq.methods`` chooses the integers of linear layers on what these read, None on weights alone.
    """

    size: int = 32
    symmetric: bool = True
    form: Form = "ort"
    accuracy_level: int = 4
    nearest: bool = False
    method: str | None = None


@dataclass
class Job:
    """A prepared float graph, the samples to calibrate on (None without data), and what the user chose."""

    model: ir.Model
    samples: Samples | None
    profile: Profile
    method: Method
    folder: Path
    keep_float: Sequence[re.Pattern[str]] = ()
    node_types: Sequence[NodeType] = ()
    exempt_to: str = FLOAT  # what a layer becomes that breaks the target: of the quant's node types
    blocks: Blocks = field(default_factory=Blocks)
    granularity: Granularity = "channel"  # of weights
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    notes: list[str] = field(default_factory=list)
    session: dict[str, str] = field(default_factory=dict)
    cache: bool = True  # keep what calibration saw in the user's cache
    passes: list[Pass] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)  # what the user wants of single layers, by name
    scales: dict[str, Granularity] = field(
        default_factory=dict
    )  # and where he says so, what shares a scale there

    @cached_property
    def layers(self) -> list[str]:
        """Names of the nodes that may be quantized: convolutions, linear and recurrent layers that no pattern keeps."""
        convolutions = [(str(c.node.name), c.weight) for c in find_convolutions(self.model)]
        linears = [(linear.name, linear.weight) for linear in find_linears(self.model)]
        recurrent = [
            (layer.name, w) for layer in find_recurrents(self.model) for w in (layer.weight, layer.recurrence)
        ]
        weights = [(name, w) for name, w in (*convolutions, *linears, *recurrent) if not self.kept(name)]
        broken = {name for name, weight in weights if not _is_finite(weight)}
        if broken:
            self.notes.append(f"left as they are, for NaN or infinite weights: {', '.join(sorted(broken))}")
        return [name for name in dict(weights) if name not in broken and self.types.get(name) != FLOAT]

    def check_types(self) -> None:
        """Match the user's patterns with the graph as it is before anything is folded. Raises UsageError."""
        found = types_of(find_layers(self.model), self.node_types)
        self.types = {name: one.type_name for name, one in found.items()}
        self.scales = {name: one.granularity for name, one in found.items() if one.granularity is not None}

    @property
    def granularities(self) -> Granularities:
        """What shares a scale, layer by layer."""
        return Granularities(self.granularity, self.scales)

    def kept(self, name: str) -> bool:
        """Whether the user keeps what has this name in float."""
        return any(pattern.search(name) for pattern in self.keep_float)

    def observe(
        self,
        stage: str,
        values: Sequence[ir.Value],
        most: int | None = None,
        smoothed: Mapping[ir.Value, Scales] | None = None,
    ) -> dict[str, RangeCollector]:
        """Run the samples, or the first ``most``, through the graph as it is now; statistics of the values by name.

        Those in ``smoothed`` are seen as they will be after smoothing.
        """
        assert self.samples is not None
        samples = self.samples if most is None else self.samples.first(most)
        started = time.perf_counter()

        def progress(done: int) -> None:
            self.progress(f"calibrating {stage}", done, max(samples.count, done))

        if self.cache:
            found, kept = cached_ranges(
                self.model, samples, self._data, self.folder, values, progress, samples.limit, smoothed
            )
        else:
            found = collect_ranges(self.model, samples, self.folder, progress, values, smoothed)
            kept = False
        seen = max((collector.samples for collector in found.values()), default=0)
        seen = min(seen, samples.count or seen)  # each round of a loop counts
        self.passes.append(Pass(stage, seen, kept, time.perf_counter() - started))
        return found

    @cached_property
    def _data(self) -> bytes:
        assert self.samples is not None
        return data_hash(self.samples)


def _is_finite(weight: ir.Value) -> bool:
    """Whether all its numbers are; reads them, a few megabytes at a time."""
    tensor = weight.const_value
    assert tensor is not None
    flat = tensor.numpy().reshape(-1)
    fine = all(_are_finite(flat[start : start + _PIECE]) for start in range(0, flat.size, _PIECE))
    let_go(tensor)
    return fine


def _are_finite(numbers: NDArray[np.float32]) -> bool:
    """A sum is cheaper than a look at each number; only large ones make it infinite by themselves."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(numbers.sum()) or np.isfinite(numbers).all())


# A quant looks at the float graph once (it may fold things into it), and gives what rewrites a copy of it: all layers
# named, and nothing else.
Plan = Callable[[Job], Apply]


@dataclass(frozen=True)
class OnnxQuant:
    """``rounds_layers``: it quantizes layers one by one, so that single ones can be put back to float.

    ``node_types`` are the types that single layers can have.
    """

    name: str
    plan: Plan
    rounds_layers: bool
    node_types: Collection[str]


ONNX_QUANTS: dict[str, OnnxQuant] = {}


def onnx_quant(
    name: str, rounds_layers: bool = True, node_types: Collection[str] = (FLOAT,)
) -> Callable[[Plan], Plan]:
    """Register a function as a quant of ONNX files."""

    def register(plan: Plan) -> Plan:
        ONNX_QUANTS[name] = OnnxQuant(name, plan, rounds_layers, node_types if rounds_layers else ())
        return plan

    return register


def find_quant(name: str) -> OnnxQuant:
    """The quant of that name, any case; raises UsageError listing them."""
    from edgeq.onnx import quants

    for module in pkgutil.iter_modules(quants.__path__):
        importlib.import_module(f"{quants.__name__}.{module.name}")
    key = name.lower().replace("_", "-")
    if key not in ONNX_QUANTS:
        raise UsageError(f"--quant {name}: for an ONNX file there are {', '.join(sorted(ONNX_QUANTS))}")
    return ONNX_QUANTS[key]
