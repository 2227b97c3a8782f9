"""``edgeq plan``: each sensible format of a model on a device, predicted and ranked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.devices.choose import Candidate, Ranked, Wanted, rank
from edgeq.devices.machine import Machine, cpu_of, gpu_of
from edgeq.devices.memory import Ceiling, Footprint, ceiling, footprint, repacked_types
from edgeq.devices.predict import Speed, decode_speed, prefill_speed
from edgeq.devices.profile import Profile
from edgeq.errors import InputError, UsageError
from edgeq.planning.formats import RUNNERS, Made, formats_of
from edgeq.planning.model import PlannedModel, open_model
from edgeq.planning.quality import Loss, exports_of, measured, typical

MOST_KL, MOST_COSINE_LOSS = 0.05, 0.01
_CONTEXT = 4096  # where the user names none, no more than the model's own
_PROMPT, _DEPTH = 512, 128  # tokens: of a prompt that is read, and before a token that is generated
_ONNX_CACHE_BYTES = 4
_LARGEST_BROWSER_GRAPH = 4 << 30


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


@dataclass(frozen=True)
class Entry:
    """One format on the device. ``full`` is generating with a full context."""

    made: Made
    unit: str
    memory: Footprint
    prefill: Speed
    decode: Speed | None
    full: Speed | None
    loss: Loss | None
    runs_on: str


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
    entries = {made.name: _entry(model, made, place, losses) for made in formats_of(model)}
    decoder = model.kind == "decoder"
    most_loss = MOST_KL if decoder else MOST_COSINE_LOSS
    wanted = Wanted(
        memory_bytes=place.limit.nbytes,
        most_loss=most_loss if request.most_loss is None else request.most_loss,
        least_speed=request.least_speed,
        loss_name="KL" if decoder else "1 - cosine",
    )
    ranked = rank([_candidate(entry, place) for entry in entries.values()], wanted)
    return {
        "model": _about(model, request.model),
        "device": {"id": place.profile.id, "name": place.profile.name, "app": place.app},
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
    own = gpu is not None and not gpu.shared
    limit = ceiling(profile, app, gpu.gb if gpu is not None and own else None)
    if gpu is not None and gpu.shared and gpu.gb * 1e9 < limit.nbytes:
        limit = Ceiling(gpu.gb * 1e9, f"{gpu.gb:g} GB that the GPU may use")
    return _Place(
        profile=profile,
        app=app,
        context=context,
        cpu=cpu_of(profile, request.threads) if profile.clusters else None,
        gpu=None if gpu is None else gpu_of(profile, gpu),
        api="" if gpu is None else gpu.api,
        limit=limit,
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
    work = model.work(made.types, _ONNX_CACHE_BYTES if made.target == "onnx" else 2)
    decoder = model.kind == "decoder"
    return Entry(
        made=made,
        unit=machine.unit,
        memory=footprint(work, made.tensor_bytes, place.context, place.repacked(made, machine)),
        prefill=prefill_speed(work, machine, min(_PROMPT, place.context)),
        decode=decode_speed(work, machine, min(_DEPTH, place.context)) if decoder else None,
        full=decode_speed(work, machine, place.context) if decoder else None,
        loss=losses.get((made.target, made.quant)),
        runs_on=RUNNERS[made.target, place.app],
    )


def _candidate(entry: Entry, place: _Place) -> Candidate:
    made, speed = entry.made, entry.decode or entry.prefill
    problem = ""
    if place.app == "browser" and made.target == "onnx" and made.file_bytes > _LARGEST_BROWSER_GRAPH:
        problem = "a page cannot load an ONNX graph of more than 4 GB"
    return Candidate(
        name=made.name,
        file_bytes=made.file_bytes,
        memory_bytes=entry.memory.total,
        speed=speed.tokens_per_second,
        loss=None if entry.loss is None else entry.loss.value,
        problem=problem,
    )


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
    speeds = {"prefill": entry.prefill, "decode": entry.decode, "decode_full_context": entry.full}
    return {
        "place": row.place,
        "reason": row.reason,
        "format": made.target,
        "quant": made.quant,
        "stored": made.stored,
        "file_bytes": made.file_bytes,
        "exact_size": made.exact,
        "memory": asdict(entry.memory) | {"total": entry.memory.total},
        "speed": {name: asdict(speed) for name, speed in speeds.items() if speed is not None},
        "quality": None if entry.loss is None else asdict(entry.loss),
        "unit": entry.unit,
        "runs_on": entry.runs_on,
    }
