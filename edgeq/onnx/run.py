"""``edgeq quantize model.onnx``: read, calibrate, rewrite, prove, and say no where a gate does."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgeq.calibration.inputs import Arrays, Input, checked, inputs_of
from edgeq.calibration.made_up import made_up_samples
from edgeq.calibration.methods import parse_method
from edgeq.calibration.sources import Images, Samples, Want, open_samples
from edgeq.convert.onnx_file import tensor_results
from edgeq.devices.cpu import usable_cores
from edgeq.errors import EdgeqError, InputError, UsageError
from edgeq.evaluation.speed import TimedPair, timed_pair
from edgeq.file_hash import sha256
from edgeq.formats.atomic import check_output
from edgeq.formats.onnx.blocked import SIZES
from edgeq.formats.onnx.passes.blocked_weights import Form
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.onnx.compare import compare, is_of_classes, within, worst, worst_kl
from edgeq.onnx.exempt import Exemption, exempt
from edgeq.onnx.isa import Profile, changed, find_profile, find_types
from edgeq.onnx.job import Apply, Blocks, Job, OnnxQuant, find_quant
from edgeq.onnx.judge import Judge
from edgeq.onnx.left import left_in_float
from edgeq.onnx.node_types import FLOAT, INT16, parse_node_types
from edgeq.onnx.saturation import emulate, said
from edgeq.onnx.sessions import write_config
from edgeq.options import parsed
from edgeq.outputs import output_folder
from edgeq.peak_memory import peak_memory
from edgeq.runtimes.onnxruntime import VERSION, OnnxSession
from edgeq.runtimes.ort_format import ort_paths, required_operators, write_ort
from edgeq.versions import versions

DEFAULT_MIN_COSINE = 0.99
_TRIAL_SAMPLES, _MORE_SAMPLES, _PROOF_SAMPLES, _TIMED_SAMPLES = 16, 64, 256, 4
_BLOCKED = ("int2", "int4", "int8-blocks")
_ONLY_FOR = {
    "--block-size": (*_BLOCKED, "nf4", "fp4"),
    **dict.fromkeys(("--asymmetric", "--dialect", "--accuracy-level", "--nearest"), _BLOCKED),
    "--per-tensor": ("float8",),
}
_ORT_SAMPLES = 4  # on which the file for mobile builds is compared with the graph
_SATURATION_SAMPLES = 8
_TIMED_AGAIN = 2
_SLOWER = 0.95  # of the float graph's speed; two runs of one graph are often 3 % apart
_LOST_SECONDS = 2e-4  # a run; below that the cost of starting a few more nodes decides
_QUANTIZED = frozenset(
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "DynamicQuantizeLSTM",
    )
)  # fmt: skip


@dataclass
class Request:
    """What the user asked for; options as the command's help has them.

    ``calibration`` is a file, a folder, or an iterable of ``{input: array}`` that can be read again and again.
    ``min_cosine`` None is the quant's own target; of all layers, ``most_exempted`` may go back to float.
    """

    source: Path
    out: Path
    quant: str = "auto"
    calibration: Path | Iterable[Arrays] | None = None
    method: str = "minmax"
    samples: int = 0
    images: Images = field(default_factory=Images)
    isa: str = "generic"
    scheme: str | None = None
    full_range: bool = False
    keep_float: Sequence[str] = ()
    node_types: Sequence[str] = ()
    exempt_to: str = FLOAT
    block_size: int | None = None
    asymmetric: bool = False
    dialect: Form = "ort"
    accuracy_level: int | None = None
    nearest: bool = False
    per_tensor: bool = False
    ort: bool = False
    min_cosine: float | None = None
    max_kl: float | None = None
    most_exempted: float = 1.0
    allow_slower: bool = False
    cache: bool = True
    proof: bool = True
    force: bool = False
    threads: int = 0
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    warn: Callable[[str], None] = field(default=lambda message: None)


def run(request: Request) -> dict[str, Any]:
    """Quantize and prove; the record that ``--json`` prints and edgeq.json keeps.

    Its ``gates`` are the sentences of the gates that said no; the file is written all the same. Raises EdgeqError.
    """
    if request.quant.lower() == "auto":
        from edgeq.onnx.auto import run_auto

        return run_auto(request)
    quant = find_quant(request.quant)
    path = target_path(request, quant.name)
    with output_folder(path.parent):
        for target in (path, *(ort_paths(path) if request.ort else ())):
            check_output(target, force=request.force)
        return _Run(request, quant, path).record()


def target_path(request: Request, quant: str) -> Path:
    """The file to write: ``-o`` itself where it ends in .onnx, else NAME_QUANT.onnx in that folder."""
    out = request.out
    if out.suffix.lower() != ".onnx":
        out = out / f"{request.source.stem}_{quant.replace('-', '_')}.onnx"
    if not request.source.is_file():
        raise InputError(f"{request.source}: no such file")
    if out.exists() and out.samefile(request.source):
        raise InputError(f"{out}: is the file being read; choose another output")
    return out


class _Run:
    def __init__(self, request: Request, quant: OnnxQuant, path: Path) -> None:
        from edgeq.report.files import JSON_NAME, read_exports

        self.request, self.quant, self.path = request, quant, path
        self.speed_of_all: float | None = None  # measured where layers are exempted
        self.target = DEFAULT_MIN_COSINE if request.min_cosine is None else request.min_cosine
        self.threads = request.threads or usable_cores()
        self.started = time.perf_counter()
        read_exports(path.parent / JSON_NAME)  # a file there that is not ours is refused before the work
        method = parsed("--calibration-method", request.method, parse_method)
        types = None if request.scheme is None else parsed("--scheme", request.scheme, find_types)
        chosen = changed(parsed("--isa", request.isa, find_profile), types, request.full_range)
        blocks = _blocks(request, chosen)
        _check_options(request, quant.name)
        patterns = [_pattern(text) for text in request.keep_float]
        types_wanted = parse_node_types(request.node_types, quant.node_types, quant.name)
        if request.exempt_to not in {FLOAT, INT16} & {FLOAT, *quant.node_types}:
            known = "float or int16" if INT16 in quant.node_types else "float"
            raise UsageError(f"--exempt-to {request.exempt_to}: for {quant.name} there is {known}")
        self.model = read_model(request.source)
        self._refuse_quantized()
        self.inputs = self._inputs()
        self.float_values = _float_values(self.model)
        names = [str(value.name) for value in self.model.graph.outputs]
        if request.max_kl is not None and not any(map(is_of_classes, names)):
            raise UsageError(
                f"--max-kl {request.max_kl:g}: no output is named as logits, scores or classes, but {', '.join(names)}"
            )
        notes = prepare(self.model)
        self.judge = Judge(request.source, self.model, path.parent, self.threads)
        data = self._data(notes)
        self.samples, self.test = (data, data) if data.made_up else data.split()
        self.job = Job(
            self.model, None if data.made_up else self.samples, chosen, method, path.parent, patterns,
            types_wanted, request.exempt_to, blocks, request.per_tensor, request.progress, notes, cache=request.cache,
        )  # fmt: skip
        self.job.check_types()
        for text, pattern in zip(request.keep_float, patterns, strict=True):
            names = [node.name or "" for node in self.model.graph.all_nodes()]
            if not any(map(pattern.search, [*names, *self.model.graph.initializers])):
                raise UsageError(f"--keep-float {text}: matches no node and no tensor")

    @cached_property
    def reference(self) -> OnnxSession:
        """The float graph in the runtime; let go while the calibrated copy of it runs."""
        return OnnxSession(self.request.source, self.threads)

    def _inputs(self) -> list[Input] | None:
        """None where one is no tensor: such a graph is quantized without being run."""
        try:
            return inputs_of(self.model)
        except InputError:
            if self.request.calibration is not None:
                raise
            return None

    def _refuse_quantized(self) -> None:
        found = _quantized_operators(self.model)
        if found:
            raise InputError(
                f"{self.request.source}: is quantized already ({', '.join(sorted(found))}); start from the float file"
            )

    def _data(self, notes: list[str]) -> Samples:
        given, inputs = self.request.calibration, self.inputs
        if given is None or inputs is None:
            accepts = self._accepts if self.request.proof else lambda feeds: True
            return made_up_samples(inputs or [], accepts)
        if isinstance(given, Path):
            want = Want(self.request.source, inputs, self.request.images, self.request.samples, notes)
            return open_samples(given, want)
        arrays = given  # names of their own, so that they cannot become None

        def iterate() -> Iterator[Arrays]:
            for number, feeds in enumerate(arrays):
                yield checked(feeds, inputs, f"calibration sample {number}")

        count = len(arrays) if isinstance(arrays, Sequence) else 0
        return Samples("arrays", count, iterate, limit=self.request.samples)

    def record(self) -> dict[str, Any]:
        """All the work, and what came of it."""
        from edgeq.report.files import write_report

        request, job = self.request, self.job
        self.can_run = request.proof or not self.samples.made_up
        if self.can_run:
            self._check_samples()
            self.__dict__.pop(
                "reference", None
            )  # two copies of the graph in the runtime at a time are enough
        apply = self.quant.plan(job)
        found, model = self._quantized(apply)
        self._tell_what_is_left(model, found)
        tensors = tensor_results(model)
        files = save_model(model, self.path, force=request.force)
        config = write_config(self.path, job.session)
        files += [config] if config else []
        mobile = self._ort_format() if request.ort else None
        files += [self.path.with_name(name) for name in mobile["files"]] if mobile else []
        seconds = time.perf_counter() - self.started
        proof = self._proof(found, model) if self.can_run and request.proof else None
        gates = self._gates(proof, found)
        for note in job.notes:
            request.warn(note)
        record: dict[str, Any] = {
            "file": self.path.name,
            "format": "onnx",
            "quant": self.quant.name,
            "model": {
                "name": request.source.name, "family": "onnx", "kind": "graph", "parameters": self.float_values,
            },
            "bytes": sum(file.stat().st_size for file in files),
            "float32_bytes": 4 * self.float_values,
            "sha256": {file.name: sha256(file) for file in files},
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(),
            "tensors": [asdict(tensor) for tensor in tensors],
            "calibration": self._calibration(),
            "layers": found.layers,
            "exempted": found.exempted,
            "exempted_to": request.exempt_to,
            "node_types": job.types,
            "session": job.session,
            "ort": mobile,
            "notes": job.notes,
            "proof": proof,
            "gates": gates,
            "versions": versions(),
        }  # fmt: skip
        written = write_report(self.path.parent, record)
        return record | {
            "files": [str(file) for file in [self.path, *(f for f in files if f != self.path), *written]]
        }

    def _calibration(self) -> dict[str, Any] | None:
        """What the ranges come from; None where there are none."""
        if not self.job.passes:
            return None
        return {
            "data": self.samples.name,
            "method": str(self.job.method),
            "passes": [asdict(one) for one in self.job.passes],
        }

    def _tell_what_is_left(self, model: ir.Model, found: Exemption) -> None:
        """Note the weights that no quant took; raise InputError where that is all of them."""
        if not self.quant.rounds_layers:
            return
        if found.layers and not _quantized_operators(model):
            raise InputError(
                f"{self.request.source}: {self.quant.name} rounds none of its weights, which are few or of operators "
                "that it leaves alone; take another --quant, or give --calibration"
            )
        left = left_in_float(model, self.float_values, frozenset(found.exempted))
        if left is not None:
            self.job.notes.append(left)

    def _ort_format(self) -> dict[str, Any]:
        """The file for mobile builds: what was written, the operators that it needs, and whether it answers alike."""
        target, config = write_ort(self.path, self.job.session, force=self.request.force)
        session = OnnxSession(target, self.threads, self.job.session)
        found: dict[str, Any] = {
            "files": [target.name, config.name],
            "bytes": target.stat().st_size,
            "operators": required_operators(config),
        }
        if self.can_run and self.request.proof:
            graph = OnnxSession(self.path, self.threads, self.job.session)
            found["closeness"] = worst(compare(graph, session, self.test.first(_ORT_SAMPLES)))
        return found

    def _accepts(self, feeds: Arrays) -> bool:
        """Whether the float graph runs with these."""
        try:
            self.reference.run(feeds, self.reference.outputs)
        except EdgeqError:
            return False
        return True

    def _check_samples(self) -> None:
        """Run the float graph once: what it refuses is wrong where it was given, and proves nothing where made up."""
        first = next(iter(self.samples), None)
        if first is None:
            raise InputError(f"{self.samples.name}: holds no sample; give one at least")
        try:
            self.reference.run(first, self.reference.outputs)
        except EdgeqError as error:
            if not self.samples.made_up:
                raise InputError(
                    f"{self.samples.name}: the float model refuses the first sample ({error})"
                ) from None
            self.can_run = False
            self.job.notes.append(f"nothing is proven: the float model refuses made-up inputs ({error})")
            return

    def _quantized(self, apply: Apply) -> tuple[Exemption, ir.Model]:
        """The layers that stand the target, and the graph with them quantized.

        They are chosen by a few samples; where more of them say otherwise, they are chosen once more by these.
        """
        target = self.target
        for count in (_TRIAL_SAMPLES, _MORE_SAMPLES):
            found = self._layers(apply, target, count)
            model = self.model.clone()
            apply(model, found.layers)
            if not found.layers or found.closeness < target or not self.can_run or not self.request.proof:
                break
            if self._judged(model, self._spread(_MORE_SAMPLES)) >= target:
                break
            target = 1 - (1 - target) / 2  # a margin for what these do not show, either
        if found.exempted:
            names = ", ".join(f"{name} ({effect:.4f})" for name, effect in found.exempted.items())
            self.job.notes.append(
                f"back to {self.request.exempt_to}, because all quantized gave {found.before:.4f}; what each cost "
                f"alone: {names}"
            )
            self.speed_of_all = self._speed_of_all(apply)
        return found, model

    def _judged(self, model: ir.Model, samples: list[Arrays]) -> float:
        """How close a graph's answers are, both targets on one scale."""
        outputs = self.judge.compare(model, self.job.session, samples)
        return within(outputs, self.target, self.request.max_kl)

    def _speed_of_all(self, apply: Apply) -> float:
        """Times the float graph's speed with no layer exempted."""
        model = self.model.clone()
        apply(model, self.job.layers)
        with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=self.path.parent) as folder:
            path = Path(folder) / "trial.onnx"
            save_model(model, path, force=True)
            return self._timed(path, self.test.first(_TIMED_SAMPLES)).ratio

    def _spread(self, count: int) -> list[Arrays]:
        """So many of the samples to compare on, from all over them."""
        step = max(1, self.test.count // count)
        return list(islice(iter(self.test), 0, step * count, step))

    def _layers(self, apply: Apply, target: float, count: int) -> Exemption:
        """The layers to quantize: all, but for those that break the target."""
        layers = self.job.layers
        if not self.quant.rounds_layers:
            return Exemption([], 1.0, 1.0)
        if not layers:
            what = (
                "every layer is kept in float"
                if self.request.keep_float
                else "there is no layer with constant weights"
            )
            raise InputError(f"{self.request.source}: nothing to quantize, {what}")
        if not self.can_run or not self.request.proof:
            return Exemption(layers, 1.0, 1.0)
        samples = self._spread(count)

        def trial(chosen: Collection[str]) -> float:
            model = self.model.clone()
            apply(model, chosen)
            return self._judged(model, samples)

        return exempt(
            layers,
            trial,
            target,
            lambda done, total: self.request.progress("measuring layers", done, total),
            most=int(self.request.most_exempted * len(layers)),
        )

    def _proof(self, found: Exemption, model: ir.Model) -> dict[str, Any]:
        """The written file against the source, in the runtime, with the session options that go with it."""
        request = self.request
        started = time.perf_counter()
        OnnxSession(self.path, self.threads, self.job.session)
        loaded = time.perf_counter() - started
        outputs = self.judge.compare(model, self.job.session, self.test.first(_PROOF_SAMPLES))
        feeds = list(islice(iter(self.test), _TIMED_SAMPLES))
        request.progress("timing against float", 0, 1)
        timed = self._timed(self.path, feeds)
        if self.speed_of_all is not None:
            self.job.notes.append(
                f"with no layer back to {request.exempt_to} it would run at {self.speed_of_all:.2f} times the float "
                f"graph's speed, now at {timed.ratio:.2f}"
            )
        request.progress("timing against float", 1, 1)
        return {
            "runtime": f"ONNX Runtime {VERSION}",
            "text": self.test.name,
            "builtin_text": self.test.made_up,
            "held_out": self.test is not self.samples,
            "samples": max((one.samples for one in outputs), default=0),
            "load_seconds": loaded,
            "closeness": worst(outputs),
            "closeness_of_all_layers": found.before,
            "kl": worst_kl(outputs),
            "speed_of_all_layers": self.speed_of_all,
            "outputs": [one.summary() for one in outputs],
            "saturation": self._saturation(model),
            "speed_against_float": timed.ratio,
            "seconds_per_run": timed.ours,
            "seconds_per_run_float": timed.reference,
        }

    def _saturation(self, model: ir.Model) -> dict[str, Any]:
        """What an x86 CPU without VNNI would make of the graph; noted where it is something else."""
        self.request.progress("emulating x86 without VNNI", 0, 1)
        found = emulate(model, self.test.first(_SATURATION_SAMPLES), self.path.parent, self.threads)
        self.request.progress("emulating x86 without VNNI", 1, 1)
        note = said(found)
        if note is not None:
            self.job.notes.append(note)
        return found

    def _timed(self, path: Path, samples: Iterable[Arrays]) -> TimedPair:
        """Both graphs' seconds; what looks slower is timed again, since other work on the machine makes it so, too."""
        config, source, feeds = self.job.session, self.request.source, list(samples)
        output = str(self.model.graph.outputs[0].name)
        found = timed_pair(path, source, feeds, output, self.threads, config)
        for _ in range(_TIMED_AGAIN):
            if found.ratio >= 1:
                break
            again = timed_pair(path, source, feeds, output, self.threads, config)
            found = max(found, again, key=lambda pair: pair.ratio)
        return found

    def _gates(self, proof: dict[str, Any] | None, found: Exemption) -> list[str]:
        """What the gates say that said no."""
        if proof is None:
            return []
        said = []
        if self.quant.rounds_layers and not found.layers:
            kl = "" if self.request.max_kl is None else f" or --max-kl {self.request.max_kl:g}"
            said.append(
                f"{self.path.name}: nothing is quantized, since every layer misses --min-cosine "
                f"{self.target:g}{kl}; ask for less, or give more calibration data"
            )
        if proof["closeness"] < self.target:
            counted = [output for output in proof["outputs"] if "judged_by" not in output]
            least = min(counted, key=lambda output: output["closeness"])
            said.append(
                f"{self.path.name}: closeness {proof['closeness']:.4f} of output {least['name']} is below "
                f"{self.target:g}; give more calibration data, or --keep-float what report.html shows"
            )
        if self.request.max_kl is not None and (proof["kl"] is None or proof["kl"] > self.request.max_kl):
            known = (
                "unknown, for no output has rows of classes," if proof["kl"] is None else f"{proof['kl']:.4g}"
            )
            said.append(
                f"{self.path.name}: the KL divergence is {known} and --max-kl is {self.request.max_kl:g}"
            )
        lost = proof["seconds_per_run"] - proof["seconds_per_run_float"]
        slower = proof["speed_against_float"] < _SLOWER and lost > _LOST_SECONDS
        if slower and not self.request.allow_slower:
            said.append(
                f"{self.path.name}: runs at {proof['speed_against_float']:.2f} times the speed of float here; take "
                "another --quant, or --allow-slower for the smaller file"
            )
        return said


def _check_options(request: Request, quant: str) -> None:
    """Raise UsageError for an option that the quant would not heed."""
    given = {
        "--block-size": request.block_size is not None,
        "--asymmetric": request.asymmetric,
        "--dialect": request.dialect != "ort",
        "--accuracy-level": request.accuracy_level is not None,
        "--nearest": request.nearest,
        "--per-tensor": request.per_tensor,
    }
    for option, quants in _ONLY_FOR.items():
        if given[option] and quant not in quants:
            raise UsageError(f"{option} goes with --quant {', '.join(quants)}, not with {quant}")


def _blocks(request: Request, profile: Profile) -> Blocks:
    """What the user chose of blocks, or what the CPU wants."""
    size = profile.block_size if request.block_size is None else request.block_size
    if size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise UsageError(f"--block-size {size}: ONNX Runtime has kernels for {sizes}")
    level = profile.accuracy_level if request.accuracy_level is None else request.accuracy_level
    if level not in (1, 4):
        raise UsageError(f"--accuracy-level {level}: on the CPU only 1 and 4 differ")
    return Blocks(size, not request.asymmetric, request.dialect, level, request.nearest)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--keep-float {text}: is no regular expression ({error})") from None


def _quantized_operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph.all_nodes()} & _QUANTIZED


def _float_values(model: ir.Model) -> int:
    """The numbers in the graph's float constants: its parameters."""
    from edgeq.formats.onnx.read import tensors

    return sum(tensor.size for _, tensor in tensors(model) if tensor.dtype.is_floating_point())
