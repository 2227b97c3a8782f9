"""``edgeq plan``: each sensible format of a model on a device, predicted and ranked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.devices.choose import Candidate, Ranked, Wanted, rank
from edgeq.devices.machine import Machine, cpu_of, gpu_of
from edgeq.devices.memory import Ceiling, Footprint, ceiling, footprint, repacked_types
from edgeq.devices.predict import (
    Speed,
    decode_seconds,
    decode_speed,
    prefill_seconds,
    prefill_speed,
    speed_of,
)
from edgeq.devices.profile import Profile
from edgeq.devices.work import Work
from edgeq.errors import InputError, UsageError
from edgeq.planning.formats import RUNNERS, Made, formats_of
from edgeq.planning.model import PlannedModel, open_model
from edgeq.planning.offload import Offload, plan_offload
from edgeq.planning.quality import Loss, exports_of, measured, typical

MOST_KL, MOST_COSINE_LOSS = 0.05, 0.01
_CONTEXT = 4096  # where the user names none, no more than the model's own
_PROMPT, _DEPTH = 512, 128  # tokens: of a prompt that is read, and before a token that is generated
_ONNX_CACHE_BYTES = 4.0
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}  # of a cached value
_LARGEST_BROWSER_GRAPH = 4 << 30
_CPU = "CPU"  # a machine's unit


@dataclass
class Request:
    """What the user asked for; 0 and None are the defaults."""

    model: Path
    profile: Profile
    context: int = 0
    app: str | None = None
    unit: str = "auto"
    threads: int = 0
    most_loss: float | None = None
    least_speed: float = 0.0
    evaluation: Path | None = None
    kv_type: str = "f16"  # of llama.cpp's and edgeq's cache: f16 or q8_0
    engine: str = "llama.cpp"  # whose measured rates predict: of ENGINES
    quants: Mapping[str, Sequence[str]] | None = (
        None  # by target (gguf, onnx), the only ones to rank; None: all
    )


@dataclass(frozen=True)
class Speeds:
    """Reading a prompt, generating after a few tokens, and generating with a full context (not of encoders)."""

    prefill: Speed
    decode: Speed | None
    decode_full_context: Speed | None

    def record(self) -> dict[str, Any]:
        """What ``--json`` has of them."""
        return {name: speed for name, speed in asdict(self).items() if speed is not None}


@dataclass(frozen=True)
class Entry:
    """One format on the device; ``on_cpu`` are the speeds of its cores alone, where it has some."""

    made: Made
    unit: str
    memory: Footprint
    speeds: Speeds
    on_cpu: Speeds | None
    loss: Loss | None
    runs_on: str
    offload: Offload | None = None


@dataclass(frozen=True)
class _Place:
    """Where it shall run."""

    profile: Profile
    app: str
    context: int
    cpu: Machine | None
    gpu: Machine | None
    api: str
    limit: Ceiling
    kv_bytes: float = 2.0

    def machine(self, made: Made) -> Machine:
        """What runs a format: the GPU where its runtime can use it."""
        if self.gpu is not None and (made.target == "gguf" or self.api == "cuda" or self.cpu is None):
            return self.gpu
        assert self.cpu is not None
        return self.cpu

    def repacked(self, made: Made, machine: Machine) -> frozenset[str]:
        """The types that the runtime keeps twice."""
        on_cpu = machine is self.cpu and made.target == "gguf"
        return repacked_types(self.profile.isa, self.app) if on_cpu else frozenset()


def run(request: Request) -> dict[str, Any]:
    """The record that ``--json`` prints; raises EdgeqError."""
    model = open_model(request.model)
    place = _place(request, model)
    losses = typical(model.kind) | measured(exports_of(_evaluation(request, model)))
    entries = {made.name: _entry(model, made, place, losses) for made in _formats(request, model)}
    decoder = model.kind == "decoder"
    most_loss = MOST_KL if decoder else MOST_COSINE_LOSS
    wanted = Wanted(
        memory_bytes=place.limit.nbytes,
        most_loss=most_loss if request.most_loss is None else request.most_loss,
        least_speed=request.least_speed,
        known_loss=request.most_loss is not None and math.isfinite(request.most_loss),
        loss_name="KL" if decoder else "1 - cosine",
    )
    ranked = rank([_candidate(entry, place) for entry in entries.values()], wanted)
    return {
        "model": _about(model, request.model),
        "device": {
            "id": place.profile.id,
            "name": place.profile.name,
            "app": place.app,
            "threads": None if place.cpu is None else place.cpu.threads,
        },
        "context": place.context,
        "limit": {"bytes": int(place.limit.nbytes), "why": place.limit.why},
        "most_loss": wanted.most_loss,
        "choice": ranked[0].candidate.name if ranked and ranked[0].place else None,
        "formats": [_shown(entries[row.candidate.name], row) for row in ranked],
    }


def _place(request: Request, model: PlannedModel) -> _Place:
    profile = request.profile
    app = request.app or (profile.apps[0] if profile.apps else "desktop")
    if profile.apps and app not in profile.apps:
        raise UsageError(f"--app {app}: {profile.name} has {', '.join(profile.apps)}")
    context = request.context or min(_CONTEXT, model.context or _CONTEXT)
    if model.context and context > model.context:
        raise UsageError(f"--context {context}: the model was made for {model.context}")
    if request.unit == "gpu" and not profile.gpus:
        raise UsageError(f"--unit gpu: the profile of {profile.name} has no GPU")
    browser = app == "browser"  # WebAssembly: no GPU, and the page's memory
    gpu = profile.gpus[0] if profile.gpus and request.unit != "cpu" and not browser else None
    if gpu is None and not profile.clusters:
        asked = "--app browser" if browser else "--unit cpu"
        raise UsageError(
            f"{asked}: the profile of {profile.name} has a GPU only, and no cores to predict with"
        )
    own = gpu is not None and not gpu.shared
    limit = ceiling(profile, app, gpu.gb if gpu is not None and own else None)
    if gpu is not None and gpu.shared and gpu.gb * 1e9 < limit.nbytes:
        limit = Ceiling(gpu.gb * 1e9, f"{gpu.gb:g} GB that the GPU may use")
    return _Place(
        profile=profile,
        app=app,
        context=context,
        cpu=cpu_of(profile, request.threads, request.engine) if profile.clusters else None,
        gpu=None if gpu is None else gpu_of(profile, gpu),
        api="" if gpu is None else gpu.api,
        limit=limit,
        kv_bytes=KV_BYTES[request.kv_type],
    )


def _evaluation(request: Request, model: PlannedModel) -> Path:
    """The edgeq.json with the model's own proofs: the one given, or one that lies beside the model."""
    if request.evaluation is None:
        return (model.folder or request.model) / "edgeq.json"
    if not request.evaluation.is_file():
        raise InputError(f"{request.evaluation}: no such file; give the edgeq.json of an export")
    return request.evaluation


def _entry(model: PlannedModel, made: Made, place: _Place, losses: dict[tuple[str, str], Loss]) -> Entry:
    machine = place.machine(made)
    work = model.work(made.types, _cache_bytes(made, place))
    on_cpu = None if place.cpu is None else _speeds(model, work, place.cpu, place.context)
    offload = _offload(model, made, place, machine)
    split = offload is not None and offload.layers <= model.shape.n_layers
    if offload is not None and split and place.cpu is not None:
        unit, memory, speeds = _split(model, made, place, place.cpu, offload)
    else:
        unit = machine.unit
        memory = footprint(work, made.tensor_bytes, place.context, place.repacked(made, machine))
        speeds = _speeds(model, work, machine, place.context)
    return Entry(
        made=made,
        unit=unit,
        memory=memory,
        speeds=speeds,
        on_cpu=on_cpu,
        loss=losses.get((made.target, made.quant)),
        runs_on=RUNNERS[made.target, place.app],
        offload=offload,
    )


def _speeds(model: PlannedModel, work: Work, machine: Machine, context: int) -> Speeds:
    """What one machine does with all of it."""
    decoder = model.kind == "decoder"
    return Speeds(
        prefill=prefill_speed(work, machine, min(_PROMPT, context)),
        decode=decode_speed(work, machine, min(_DEPTH, context)) if decoder else None,
        decode_full_context=decode_speed(work, machine, context) if decoder else None,
    )


def _formats(request: Request, model: PlannedModel) -> Iterator[Made]:
    """All sensible ones, or those that were asked for."""
    if request.quants is None:
        yield from formats_of(model)
        return
    wanted = request.quants
    for made in formats_of(model, tuple(wanted.get("gguf", ()))):
        if made.quant in wanted.get(made.target, ()):
            yield made


def _cache_bytes(made: Made, place: _Place) -> float:
    """Of a cached value: ONNX graphs have float32, where they are not float16 themselves."""
    if made.target == "gguf":
        return place.kv_bytes
    return _ONNX_CACHE_BYTES / 2 if made.quant == "float16" else _ONNX_CACHE_BYTES


def _offload(model: PlannedModel, made: Made, place: _Place, machine: Machine) -> Offload | None:
    """How many layers llama.cpp puts on the GPU, all where its memory is the CPU's; None where no GPU is used."""
    if machine is not place.gpu or made.target != "gguf" or model.kind != "decoder":
        return None
    limit = float("inf") if place.profile.gpus[0].shared else place.limit.nbytes
    return plan_offload(model, made.types, place.context, limit, place.kv_bytes)


def _split(
    model: PlannedModel, made: Made, place: _Place, cpu: Machine, offload: Offload
) -> tuple[str, Footprint, Speeds]:
    """A format of which the GPU holds a part: both parts take their time for each token, one after the other."""
    assert place.gpu is not None
    prompt, depth = min(_PROMPT, place.context), min(_DEPTH, place.context)
    parts = [(offload.on_gpu, place.gpu), (offload.on_cpu, cpu)]
    known = all(machine.measured for _, machine in parts)

    def of_both(tokens: int, seconds: Callable[[Work, Machine], float]) -> Speed:
        return speed_of(tokens, sum(seconds(work, machine) for work, machine in parts), known)

    speeds = Speeds(
        prefill=of_both(prompt, lambda work, machine: prefill_seconds(work, machine, prompt)),
        decode=of_both(1, lambda work, machine: decode_seconds(work, machine, depth)),
        decode_full_context=of_both(1, lambda work, machine: decode_seconds(work, machine, place.context)),
    )
    memory = footprint(model.work(made.types, place.kv_bytes), made.tensor_bytes, place.context)
    return f"{place.gpu.unit} and CPU", memory, speeds


def _candidate(entry: Entry, place: _Place) -> Candidate:
    made, speed = entry.made, entry.speeds.decode or entry.speeds.prefill
    problem = ""
    if place.app == "browser" and made.target == "onnx" and made.file_bytes > _LARGEST_BROWSER_GRAPH:
        problem = "a page cannot load an ONNX graph of more than 4 GB"
    if made.target == "onnx" and place.api == "cuda" and made.quant == "int8-dynamic" and entry.unit != _CPU:
        problem = "the CUDA provider has no kernel for DynamicQuantizeLinear"
    if made.target == "onnx" and made.quant == "float16" and entry.unit == _CPU:
        problem = "on a CPU ONNX Runtime computes float16 in float32, and keeps both"
    return Candidate(
        name=made.name,
        file_bytes=made.file_bytes,
        memory_bytes=_needed(entry, place),
        speed=speed.tokens_per_second,
        loss=None if entry.loss is None else entry.loss.value,
        problem=problem,
    )


def _needed(entry: Entry, place: _Place) -> int:
    """Bytes that must fit below the limit: of a GPU with a host, the part that it holds, which was made to fit."""
    if entry.offload is not None and place.cpu is not None:
        host = ceiling(place.profile, place.app)
        on_host = entry.memory.total - entry.offload.gpu_bytes
        return entry.offload.gpu_bytes if on_host <= host.nbytes else entry.memory.total
    return entry.memory.total


def _about(model: PlannedModel, path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "name": model.name,
        "architecture": model.shape.architecture,
        "kind": model.kind,
        "parameters": model.parameters,
        "stored": model.stored_name or None,
    }


def _shown(entry: Entry, row: Ranked) -> dict[str, Any]:
    made = entry.made
    by_unit = {} if entry.unit == _CPU else {"gpu": entry.speeds.record()}
    if entry.on_cpu is not None:
        by_unit["cpu"] = entry.on_cpu.record()
    return {
        "place": row.place,
        "reason": row.reason,
        "format": made.target,
        "quant": made.quant,
        "stored": made.stored,
        "file_bytes": made.file_bytes,
        "exact_size": made.exact,
        "memory": asdict(entry.memory) | {"total": entry.memory.total},
        "speed": entry.speeds.record(),
        "speed_by_unit": by_unit,
        "quality": None if entry.loss is None else asdict(entry.loss),
        "unit": entry.unit,
        "n_gpu_layers": None if entry.offload is None else entry.offload.layers,
        "runs_on": entry.runs_on,
    }
